import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadgen.endpoints.seats import Seat
from loadgen.settings import Paths
from stack import setup
from tests.boards.live_stack import CHECKOUT, LiveStack, Program, low_ports
from tests.prometheus.conftest import prometheus_binary
from tests.prometheus.test_recorded import DATA, RisingPage

__all__ = ["prometheus_binary"]


@contextlib.contextmanager
def llamacpp(folder: Path) -> Iterator[list[Seat]]:
    """The real llama.cpp, if it is set up."""
    paths = Paths(CHECKOUT)
    if not setup.is_ready(paths, "llamacpp"):
        yield []
        return
    (port,) = low_ports(1)
    (folder / "state").mkdir()
    command = [
        *(str(paths.engine_python("llamacpp")), "-m", "stack.engines.llamacpp.serve"),
        *("--model", str(paths.gguf), "--served-name", setup.SERVED_NAME),
        *("--port", str(port), "--cpus", "0", "--context-tokens", "512", "--parallel", "4"),
        *("--state-dir", str(folder / "state"), "--record", str(folder / "launch.json")),
        *("--serving", str(folder / "serving.json")),
    ]
    program = Program(command, f"http://127.0.0.1:{port}", folder / "llamacpp.log")
    try:
        program.wait("/health")
        yield [Seat(name="llamacpp", kind="llamacpp", base_url=program.url, model=setup.SERVED_NAME, api="completions")]
    finally:
        program.kill()


@pytest.fixture(scope="session")
def live_stack(prometheus_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    folder = tmp_path_factory.mktemp("live")
    gpu = RisingPage((DATA / "h200-1024mib.metrics.txt").read_text(encoding="utf-8"))
    with llamacpp(folder) as engines, LiveStack(folder, prometheus_binary, gpu, engines=engines) as stack:
        yield stack
