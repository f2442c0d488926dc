"""For all tests."""

import os
import signal
from pathlib import Path

import pytest

from loadgen.machine import MAKES_OWN_MARK

# What is said must not depend on who started the tests.
os.environ.pop(MAKES_OWN_MARK, None)
# A suite that was started in the background ignores SIGINT, and so would everything that it starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


REAL_ENGINE = (
    "boards",
    "stack/processes/test_integration.py",
    "loadgen/preflight/test_llamacpp.py",
    "loadgen/quality/test_llamacpp.py",
)
"""Tests that compute with one."""


def pytest_collection_modifyitems(items):
    """Keep a file's tests in one process, and those with a real engine: it takes all cores. These come first."""
    here = Path(__file__).parent
    for item in items:
        engine = item.path.relative_to(here).as_posix().startswith(REAL_ENGINE)
        item.add_marker(pytest.mark.xdist_group("a real engine" if engine else str(item.path)))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group").args[0] != "a real engine")
