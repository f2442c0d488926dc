"""What a report says of a race whose engines ran together: where each ran, how well, and how much that disturbed it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from loadgen.analysis.together import Overlap, disturbances, overlap
from loadgen.message import Message, joined, mark, say
from loadgen.presentation.text import DASH
from loadgen.runs.folder import RunData
from loadgen.runs.manifest import Placed
from loadgen.statistics.result import Estimate, Judged, Statistics
from loadgen.statistics.words import metric_words, percent

LEAST_OVERLAP = 0.8
"""Share of its window that a block should have had company, for the word together to hold."""


@dataclasses.dataclass(frozen=True, slots=True)
class Together:
    """Of a race whose engines ran together."""

    placement: str
    """`together`, or `both`."""
    placed: Sequence[Placed] = ()
    client_cpus: Sequence[str] = ()
    overlap: Overlap | None = None
    disturbances: Sequence[Statistics] = ()
    """Of each engine that took turns too: in turns (a) against together (b)."""


def together_of(run: RunData) -> Together | None:
    """What is known; None of engines that took turns."""
    manifest = run.manifest
    placement = manifest.scenario.get("placement")
    if placement not in ("together", "both"):
        return None
    return Together(placement, manifest.placed, manifest.client_cpus, overlap(run), disturbances(run))


def place_words(found: Together, engine: str) -> str:
    """Where an engine ran, start by start."""
    own = sorted((one for one in found.placed if one.engine == engine), key=lambda one: one.start)
    return joined("{a}; {b}", [_start(one) for one in own]) if own else DASH


def _start(one: Placed) -> Message:
    where = [say("GPU {gpus}", gpus=", ".join(one.gpus))] if one.gpus else []
    where += [say("cores {cpus}", cpus=one.cpus)] if one.cpus else []
    where += [say("memory of node {node}", node=one.memory_node)] if one.memory_node is not None else []
    return say("start {start}: {where}", start=one.start, where=joined("{a}, {b}", where) if where else DASH)


def together_words(found: Together) -> list[Message]:
    """That they ran together, and how well."""
    told: list[Message] = []
    if found.placement == "both":
        told.append(
            say(
                "Each engine was measured in turns and, as NAME-together, at the same instant as the others. What "
                "differs between the two is what running together does to it."
            )
        )
    else:
        told.append(say("The engines ran together: blocks of one cell and repeat at the same instant. See “Fairness”."))
    if not found.placed:
        told.append(say("Nobody placed them: whether each has cards and cores of its own is not known."))
    if found.overlap is not None:
        told.append(
            say(
                "Blocks that ran together shared {mean} of their windows, at least {least}: the engine that is done "
                "first leaves the other alone.",
                mean=f"{found.overlap.mean:.0%}",
                least=f"{found.overlap.least:.0%}",
            )
        )
    return told


def disturbance_words(found: Together) -> list[Message]:
    """How much running together changes each engine's figures; that nobody knows, where it was not measured."""
    if not found.disturbances:
        return [
            say(
                "How much they disturbed each other was not measured: the same race with `--placement both` measures "
                "each engine alone and together, and tells it with its interval."
            )
        ]
    return [_disturbance(one) for one in found.disturbances]


def _disturbance(one: Statistics) -> Message:
    """Such as: vllm together with the others, against itself in turns: TPOT mean +3.1% [+2.8%, +3.4%] (it disturbs)."""
    parts = [_part(judged) for judged in _headlines(one).values()]
    return say(
        "{engine} together with the others, against itself in turns: {parts}.",
        engine=one.a,
        parts=joined("{a}; {b}", parts) if parts else say("nothing that was measured"),
    )


def _headlines(one: Statistics) -> Mapping[str, Judged]:
    return {key: one.overall[key] for key in one.settings.headline if key in one.overall}


VERDICTS = {
    "a": mark("it disturbs"),
    "b": mark("it is faster so"),
    "none": mark("no disturbance beyond the margin"),
    "undecided": mark("undecided"),
    "invalid": mark("not comparable"),
}


def _part(judged: Judged) -> Message:
    return say(
        "{metric} {change} ({verdict})",
        metric=metric_words(judged.metric),
        change=change_words(judged.ratio),
        verdict=say(VERDICTS[judged.verdict]),
    )


def change_words(ratio: Estimate | None) -> str:
    """A ratio as a change: `+5.0% [+4.1%, +5.9%]`."""
    if ratio is None or not math.isfinite(ratio.estimate):
        return DASH
    ends = () if ratio.ci95 is None else ratio.ci95
    middle, *interval = (_signed(value - 1) for value in (ratio.estimate, *ends))
    return f"{middle} [{', '.join(interval)}]" if interval else middle


def _signed(share: float) -> str:
    return f"{'+' if share > 0 else ''}{percent(share)}"
