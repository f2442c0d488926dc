"""What the log of an engine that ended says of its end."""

from __future__ import annotations

import pytest

from loadgen.hosts.base import known_cause

OPTIONAL = (
    "WARNING [cuda.py:230] Failed to import from vllm._qutlass_C: "
    "ModuleNotFoundError(\"No module named 'vllm._qutlass_C'\")"
)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            "Traceback (most recent call last):\nModuleNotFoundError: No module named 'vllm'",
            "environment is incomplete",
        ),
        ("/opt/python: No module named vllm", "environment is incomplete"),
        (OPTIONAL, ""),
        (f"{OPTIONAL}\nRuntimeError: CUDA out of memory", "memory ran out"),
        ("all is well", ""),
    ],
)
def test_the_cause_that_a_log_names(log: str, words: str) -> None:
    found = known_cause(log)
    assert (words in found) if words else found == ""
