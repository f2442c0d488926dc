"""Ctrl-C in the first moments of a command, while what it needs is still being loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Stands for the terminal: the signal comes in the middle of an import.
INTERRUPTED = """
import os, runpy, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == loaded:
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
_, module, loaded, *words = sys.argv
sys.argv = [module, *words]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("module", "loaded", "words"),
    [
        ("loadgen", "loadgen.cli.app", ["run", "--base-url", "http://127.0.0.1:1"]),
        ("loadgen", "typer", ["run", "--base-url", "http://127.0.0.1:1"]),
        ("loadgen", "gevent", ["run", "--base-url", "http://127.0.0.1:1"]),
        ("loadgen", "loadgen.quick.measure", ["run", "--base-url", "http://127.0.0.1:1"]),
        ("stack", "stack.cli", ["ps"]),
        ("stack", "rich.table", ["ps"]),
    ],
)
def test_an_interrupt_is_one_word_and_no_traceback(module, loaded, words):
    command = [sys.executable, "-c", INTERRUPTED, module, loaded, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr and "interrupted" in done.stderr.lower()
