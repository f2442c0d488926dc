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
from tests.stack.set_up import has_llamacpp

__all__ = ["prometheus_binary"]


def llamacpp(folder: Path) -> Program | None:
    """The real llama.cpp, which starts, if it is set up."""
    paths = Paths(CHECKOUT)
    if not has_llamacpp(CHECKOUT):
        return None
    (port,) = low_ports(1)
    (folder / "state").mkdir()
    command = [
        *(str(paths.engine_python("llamacpp")), "-m", "stack.engines.llamacpp.serve"),
        *("--model", str(paths.gguf), "--served-name", setup.SERVED_NAME),
        *("--port", str(port), "--cpus", "0", "--context-tokens", "512", "--parallel", "4"),
        *("--state-dir", str(folder / "state"), "--record", str(folder / "launch.json")),
    ]
    return Program(command, f"http://127.0.0.1:{port}", folder / "llamacpp.log")


@pytest.fixture(scope="package")
def live_stack(prometheus_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveStack]:
    folder = tmp_path_factory.mktemp("live")
    gpu = RisingPage((DATA / "h200-1024mib.metrics.txt").read_text(encoding="utf-8"))
    program, engines = llamacpp(folder), list[Seat]()
    with contextlib.ExitStack() as ends:
        if program:
            ends.callback(program.kill)
            of_it = {"base_url": program.url, "model": setup.SERVED_NAME, "api": "completions"}
            engines = [Seat(name="llamacpp", kind="llamacpp", **of_it)]
        stack = ends.enter_context(LiveStack(folder, prometheus_binary, gpu, engines=engines))
        if program:
            program.wait("/health")
        yield stack
