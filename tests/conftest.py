"""For all tests."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from loadgen.machine import MAKES_OWN_MARK

# What is said must not depend on who started the tests.
os.environ.pop(MAKES_OWN_MARK, None)
# A suite that was started in the background ignores SIGINT, and so would everything that it starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# How long an example took says nothing on a machine with others at work.
settings.register_profile("any machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

REAL_ENGINE = (
    "boards",
    "stack/processes/test_integration.py",
    "loadgen/preflight/test_llamacpp.py",
    "loadgen/quality/test_llamacpp.py",
)
"""Tests that compute with one."""


def _real_engine(nodeid: str) -> bool:
    return nodeid.removeprefix("tests/").startswith(REAL_ENGINE)


class ByFile(LoadScopeScheduling):
    """A file's tests in one process, as its fixtures are dear, and all with a real engine: it takes all cores.

    Not xdist's own groups: version 3.8 writes them where pytest 9.2 no longer reads them, and groups nothing.
    """

    def _split_scope(self, nodeid):
        return "a real engine" if _real_engine(nodeid) else nodeid.split("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    """Real engines first, then files that start processes: the last to end is then a short one."""
    processes = {item.path for item in items if item.get_closest_marker("integration")}
    items.sort(key=lambda item: (not _real_engine(item.nodeid), item.path not in processes))


def pytest_sessionfinish(session, exitstatus):
    """Whether tests failed or the run itself did, for `.ci/run`."""
    if not hasattr(session.config, "workerinput") and hasattr(session.config, "cache"):
        session.config.cache.set("bakeoff/exit_code", int(exitstatus))
