"""The boards over a real Prometheus: every query of every panel tells something, but for those listed here.

Two simulators take vLLM's and KsanaLLM's part, llama.cpp is itself where it is set up, and the GPU is the page of an
H200 under load. All choices of a board are "All", as Grafana has them at first.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import pytest

from loadgen.boards.answers import Answer, ask
from loadgen.boards.catalogue import BOARDS
from loadgen.boards.span import make_span
from loadgen.monitoring.prometheus import Prometheus
from tests.boards.live_stack import wait_for
from tests.grafana.test_absent import SILENT
from tests.prometheus.test_recorded import DATA, RisingPage

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1800)]

LIMIT_S = 300.0
"""A busy machine takes its time until enough requests have ended."""
RUN = "20261122-120000-live"
# A KV cache that four requests do not fit into, and one request in twenty that is broken off.
TROUBLE = ("--set", "batching.kv_blocks=16", "--fault", "reset:after=3,every=20")
PANELS = {(board.uid, panel.title): panel for board in BOARDS for panel in board.panels()}

EMPTY: dict[tuple[str, str, str], str] = {
    ("bakeoff-engines", "Swapped out", "A"): "the simulator counts no swaps",
    ("bakeoff-engines", "Pushed points that were dropped", "A"): "the simulator's pushes are all taken",
    ("bakeoff-engines", "Pushed points that were dropped", "B"): "the simulator's pushes are all taken",
    ("bakeoff-gpu", "NVLink traffic", "A"): "the H200 of the fixture has no NVLink",
    ("bakeoff-client", "Disturbed by others", "A"): "no race runs, and only a race watches the machine",
    ("bakeoff-client", "Taken by others", "A"): "no race runs, and only a race watches the machine",
}
"""Queries that tell nothing here, by board, panel and letter, and why."""
LEAST_IS_LEFT_OUT: set[tuple[str, str]] = {
    ("bakeoff", title)
    for title in (
        "TTFT mean, above the least",
        "TPOT mean, above the least",
        "E2E mean, above the least",
        "Output tokens/s, below the most",
    )
}
"""Panels that compare engines with the best one, which has no figure there; which one that is, is for the race."""
LACKING_HERE: dict[tuple[str, str], dict[str, str]] = {
    ("bakeoff-engines", "Prefix cache hits"): {"vllm": "simulated vLLM has no prefix cache here"},
    ("bakeoff-engines", "Age of the newest push"): dict.fromkeys(("vllm", "llamacpp"), "only KsanaLLM pushes"),
    ("bakeoff-gpu", "GPU memory by engine"): dict.fromkeys(("ksana", "llamacpp"), "the fixture's GPU has one process"),
}
"""Kinds of engine that a panel lacks here, and why; the reasons are this test's and not the boards'."""
WITHOUT_TPOT = ("bakeoff", "Requests without TPOT, and why")
MAY_LACK = {("bakeoff", "Alerts that fire"): {"llamacpp"}, WITHOUT_TPOT: {"vllm", "ksana", "llamacpp"}}
"""Kinds of which it depends on the machine: whether llama.cpp has an alert, and whether events arrive together, as they
do where the reader or the engine is late."""


@dataclasses.dataclass
class Shown:
    """What the boards showed: each panel's answer, by board and title, and the kinds of the engines that ran."""

    answers: dict[tuple[str, str], Answer]
    kinds: dict[str, str]

    def silent(self) -> set[tuple[str, str, str]]:
        """Queries that told nothing."""
        return {
            (*place, ref)
            for place, answer in self.answers.items()
            for ref, _ in PANELS[place].lettered()
            if ref not in {each.ref for each in (*answer.lines, *answer.samples)}
        }


def engines_of(answer: Answer) -> set[str]:
    return {each.labels["engine"] for each in (*answer.lines, *answer.samples) if "engine" in each.labels}


def silent_kinds(place: tuple[str, str]) -> set[str]:
    """Kinds of engine that a panel is to have nothing of."""
    return {kind for kind, places in SILENT.items() if place in places} | {*LACKING_HERE.get(place, ())}


def wait_until_told(asked: Callable[[tuple[str, str]], Answer], name: str, kind: str) -> None:
    """Until every panel of engines tells of this one, but those that are listed."""
    pending = {
        place
        for place, panel in PANELS.items()
        if any("{{engine}}" in query.legend for query in panel.queries)
        and place not in LEAST_IS_LEFT_OUT
        and kind not in silent_kinds(place) | MAY_LACK.get(place, set())
        and not any((*place, ref) in EMPTY for ref, _ in panel.lettered())
    }

    def all_told() -> bool:
        pending.difference_update([place for place in pending if name in engines_of(asked(place))])
        return not pending

    wait_for(all_told, lambda: f"{name} on {sorted(pending)}", LIMIT_S)


@pytest.fixture(scope="module")
def shown(live_stack):
    kinds = {seat.name: seat.kind for seat in live_stack.seats}
    page = (DATA / "h200-busy.metrics.txt").read_text(encoding="utf-8")
    with live_stack.other(RisingPage(page.replace('engine="load"', 'engine="sim-vllm"')), *TROUBLE):
        wait_for(lambda: live_stack.instant("up == 1"), "a scrape", LIMIT_S)
        prometheus, begin = Prometheus(live_stack.url("prometheus")), time.time()

        def asked(place: tuple[str, str]) -> Answer:
            # The end of the range is while a block runs: what is asked for a moment is asked for then.
            return ask(PANELS[place], prometheus, make_span(begin, time.time(), 1.0), {}, [])

        for name, kind in kinds.items():
            # Real inference on a busy machine: few tokens are enough.
            live_stack.block(name, run_id=RUN, output_tokens=4 if kind == "llamacpp" else 16)
            wait_until_told(asked, name, kind)
            live_stack.locust.stop()
        live_stack.block(live_stack.seats[0].name, run_id=RUN, rate=8)
        schedule = ("bakeoff-client", "Schedule lag")
        wait_for(lambda: asked(schedule).points, "an open loop", LIMIT_S)
        yield Shown({place: asked(place) for place in PANELS}, kinds)
        live_stack.locust.stop()


def test_no_query_is_refused(shown):
    assert len({board for board, _ in shown.answers}) == 4
    assert {place: answer.problems for place, answer in shown.answers.items() if answer.problems} == {}


def test_every_query_of_every_panel_has_data_but_those_listed(shown):
    assert sum(len(panel.queries) for panel in PANELS.values()) > 40
    assert shown.silent() - {(*WITHOUT_TPOT, "A")} == set(EMPTY)


def test_every_panel_has_all_engines_but_those_that_do_not_tell(shown):
    """Of panels whose figures are engines'; the boards' own list says which kinds of engine tell nothing, and why."""
    here = set(shown.kinds.values())
    wrong = []
    for place, answer in shown.answers.items():
        told = engines_of(answer)
        lacking = {shown.kinds[name] for name in shown.kinds.keys() - told} - MAY_LACK.get(place, set())
        listed = silent_kinds(place) & here
        if told & shown.kinds.keys() and place not in LEAST_IS_LEFT_OUT and lacking != listed:
            wrong.append(f"{place} lacks {sorted(lacking)}, and listed are {sorted(listed)}")
    assert wrong == [], "\n".join(wrong)
