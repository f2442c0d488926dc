import fcntl
from pathlib import Path

import pytest

from loadgen.settings import Paths, load_settings
from stack.processes.binaries import fetch_prometheus, find_prometheus

CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def prometheus_binary() -> Path:
    """Prometheus as the stack of plain processes finds it, or fetches it where there is none."""
    paths = Paths(CHECKOUT)
    paths.state.mkdir(parents=True, exist_ok=True)
    with (paths.state / "tests.lock").open("w") as lock:  # several processes run tests, and one fetches
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = find_prometheus(load_settings(CHECKOUT), paths)
        if found is None:
            why = fetch_prometheus(paths)
            found = find_prometheus(load_settings(CHECKOUT), paths)
            if found is None:
                pytest.skip(f"there is no Prometheus: {why}")
        return found


@pytest.fixture(scope="session")
def promtool(prometheus_binary: Path) -> Path:
    """Prometheus' packages hold both."""
    tool = prometheus_binary.resolve().with_name("promtool")
    if not tool.is_file():
        pytest.skip(f"there is no promtool beside {prometheus_binary}")
    return tool
