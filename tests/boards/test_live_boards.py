"""The committed boards over a real Prometheus: every query of every panel tells something, but for those listed here.

Two simulators take vLLM's and KsanaLLM's part, llama.cpp is itself where it is set up, and the GPU is the page of an
H200 under load. All choices of a board are "All", as Grafana has them at first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator

import pytest

from loadgen.boards.answers import Answer, ask
from loadgen.boards.catalogue import BOARDS
from loadgen.boards.model import Panel
from loadgen.boards.span import make_span
from loadgen.endpoints.seats import Seat
from loadgen.monitoring.prometheus import Prometheus
from loadgen.settings import Paths
from stack import setup
from tests.boards.live_stack import CHECKOUT, LiveStack, Program, low_ports, wait_for
from tests.prometheus.test_recorded import DATA, RisingPage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

BLOCK_S = 20.0
RUN = "20261122-120000-live"
# A KV cache that four requests do not fit into, and one request in twenty that is broken off.
TROUBLE = ("--set", "batching.kv_blocks=16", "--fault", "reset:after=3,every=20")

EMPTY: dict[tuple[str, str, str], str] = {
    ("bakeoff-engines", "Swapped out", "A"): "the simulator counts no swaps",
    ("bakeoff-gpu", "NVLink traffic", "A"): "the H200 of the fixture has no NVLink",
}
"""Queries that tell nothing here, by board, panel and letter, and why."""
LEAST_IS_LEFT_OUT: set[tuple[str, str]] = {
    ("bakeoff", title) for title in ("TTFT: slower by", "TPOT: slower by", "E2E: slower by", "Output tokens/s: less by")
}
"""Panels that compare engines with the best one, which has no figure there; which one that is, is for the race."""
LACKING_HERE: dict[tuple[str, str], dict[str, str]] = {
    ("bakeoff-engines", "Prefix cache hits"): dict.fromkeys(("vllm", "ksana"), "the simulator has no prefix cache"),
    ("bakeoff-engines", "Age of the newest push"): dict.fromkeys(("vllm", "llamacpp"), "only KsanaLLM pushes"),
    ("bakeoff-gpu", "GPU memory by engine"): dict.fromkeys(("ksana", "llamacpp"), "the fixture's GPU has one process"),
}
"""Kinds of engine that a panel lacks here, and why; the reasons are this test's and not the boards'."""


@dataclasses.dataclass
class Shown:
    """What the boards showed: each panel's answer, by board and title, and the kinds of the engines that ran."""

    answers: dict[tuple[str, str], tuple[Panel, Answer]]
    kinds: dict[str, str]


@contextlib.contextmanager
def llamacpp(folder) -> Iterator[list[Seat]]:
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


@pytest.fixture(scope="module")
def shown(prometheus_binary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("boards")
    page = (DATA / "h200-busy.metrics.txt").read_text(encoding="utf-8")
    gpu = RisingPage(page.replace('engine="load"', 'engine="sim-vllm"'))
    with (
        llamacpp(folder) as engines,
        LiveStack(folder, prometheus_binary, gpu, engines=engines, simulate=TROUBLE) as stack,
    ):
        wait_for(lambda: stack.instant("up == 1"), "a scrape", 60)
        begin = time.time()
        for seat in stack.seats:
            stack.block(seat.name, run_id=RUN)
            time.sleep(BLOCK_S)
            # On a busy machine it takes longer until enough requests have ended.
            for metric in ("bakeoff_client_limited", "client:ttft_seconds:p95", "client:requests_failed:ratio"):
                wait_for(lambda s=f'{metric}{{engine="{seat.name}"}}': stack.instant(s), f"{metric} of {seat.name}", 90)
            stack.locust.stop()
        stack.block(stack.seats[0].name, run_id=RUN, rate=8)
        time.sleep(BLOCK_S)
        # The end of the range is while a block runs: what is asked for a moment is asked for then.
        prometheus, end = Prometheus(stack.url("prometheus")), time.time()
        span = make_span(begin, end, 1.0)
        answers = {}
        for board in BOARDS:
            for panel in board.panels():
                answers[board.uid, panel.title] = panel, ask(panel, prometheus, span, {}, [])
        stack.locust.stop()
        yield Shown(answers, {seat.name: seat.kind for seat in stack.seats})


def test_no_query_is_refused(shown):
    assert len({board for board, _ in shown.answers}) == 4
    assert {place: answer.problems for place, (_, answer) in shown.answers.items() if answer.problems} == {}


def test_every_query_of_every_panel_has_data_but_those_listed(shown):
    silent = {
        (*place, ref)
        for place, (panel, answer) in shown.answers.items()
        for ref, _ in panel.lettered()
        if ref not in {each.ref for each in (*answer.lines, *answer.samples)}
    }
    assert sum(len(panel.queries) for panel, _ in shown.answers.values()) > 40
    assert silent == set(EMPTY)


def test_every_panel_has_all_engines_but_those_that_do_not_tell(shown):
    """Of panels whose figures are engines'; the boards' own list says which kinds of engine tell nothing, and why."""
    here = set(shown.kinds.values())
    wrong = []
    for place, (panel, answer) in shown.answers.items():
        told = {each.labels["engine"] for each in (*answer.lines, *answer.samples) if "engine" in each.labels}
        lacking = {shown.kinds[name] for name in shown.kinds.keys() - told}
        listed = {*panel.not_told, *LACKING_HERE.get(place, ())}
        if told & shown.kinds.keys() and place not in LEAST_IS_LEFT_OUT and lacking != listed & here:
            wrong.append(f"{place} lacks {sorted(lacking)}, and listed are {sorted(listed & here)}")
    assert wrong == [], "\n".join(wrong)
