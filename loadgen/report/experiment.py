"""What came of an experiment: each engine's figure beside what was predicted of it, and a verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Literal

from loadgen.explain.block_figures import FIGURES, Seen
from loadgen.message import Message, mark, say
from loadgen.monitoring.engine_samples import BlockSamples
from loadgen.runs.folder import BlockData, RunData
from loadgen.scenario.cell import read_cell
from loadgen.scenario.experiment import Experiment, Figure
from loadgen.scenario.model import Scenario

Verdict = Literal["as predicted", "not as predicted", "cannot tell"]
VERDICTS: Mapping[Verdict, str] = {
    "as predicted": mark("as predicted"),
    "not as predicted": mark("not as predicted"),
    "cannot tell": mark("cannot tell"),
}
WORDS: Mapping[Figure, str] = {
    "found_again": mark("share of the prefixes sent before that the cache had"),
    "copies_computed": mark("equal prompts computed, in prompts"),
    "computed_again": mark("tokens computed of a prompt that was sent before"),
    "requests_a_step": mark("requests a step"),
    "prompt_tokens_a_step": mark("prompt tokens computed in a step"),
    "preemptions": mark("requests preempted or swapped out"),
    "gap_by_arrival": mark("rank correlation of longest gap with arrival"),
    "longest_wait": mark("longest wait of short requests, by their median"),
    "burst_gap_growth": mark("gaps of streams during the last burst, by those during the first"),
    "tpot_to_first": mark("TPOT, by that of the first engine"),
    "slowing_down": mark("time of an answer's last quarter, by that of its first"),
    "events_a_token": mark("events for each token"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One figure of one engine."""

    engine: str
    figure: Figure
    low: float | None
    high: float | None
    """What was predicted, both included; None is without end."""
    values: tuple[float | None, ...]
    """Of each complete block; None where it cannot be told."""

    @property
    def verdict(self) -> Verdict:
        """By all blocks: where they do not agree, or one is not known, nothing is said."""
        low = -inf if self.low is None else self.low
        high = inf if self.high is None else self.high
        inside = {None if value is None else low <= value <= high for value in self.values}
        if inside == {True}:
            return "as predicted"
        return "not as predicted" if inside == {False} else "cannot tell"

    @property
    def words(self) -> Message:
        """What the figure is."""
        return say(WORDS[self.figure])

    @property
    def predicted_text(self) -> Message:
        """The range in words."""
        if self.low is None:
            return say("at most {high}", high=figure_text(self.high))
        if self.high is None:
            return say("at least {low}", low=figure_text(self.low))
        return say("{low} to {high}", low=figure_text(self.low), high=figure_text(self.high))

    @property
    def values_text(self) -> str:
        """The blocks' values, in their order."""
        return ", ".join(map(figure_text, self.values)) or "-"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """An experiment and all its findings."""

    experiment: Experiment
    findings: tuple[Finding, ...]

    def lines(self) -> Iterator[Message]:
        """In words, for a terminal."""
        yield say("Experiment {number}: {claim}", number=self.experiment.number, claim=self.experiment.claim)
        for found in self.findings:
            yield say(
                "{engine}: {figure}: {values}; predicted {range}: {verdict}",
                engine=found.engine,
                figure=found.words,
                values=found.values_text,
                range=found.predicted_text,
                verdict=say(VERDICTS[found.verdict]),
            )


def figure_text(value: float | None) -> str:
    """A figure with three digits or all that are before the point."""
    if value is None:
        return "?"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def outcome_of(run: RunData, samples: Mapping[str, BlockSamples], scenario: Scenario | None) -> Outcome | None:
    """What a run shows of its scenario's experiment; None where it has none."""
    if scenario is None or scenario.experiment is None:
        return None
    experiment, kinds = scenario.experiment, {facts.name: facts.kind for facts in run.manifest.engines}
    complete = [block for block in run.blocks if block.facts.status == "complete"]
    findings = []
    for figure, ranges in experiment.decides.items():
        for engine, kind in kinds.items():
            expected = ranges.get(engine) or ranges.get(kind)
            if expected is None:
                continue
            own = [block for block in complete if block.facts.engine == engine]
            seen = [_seen(block, complete, samples, scenario, next(iter(kinds))) for block in own]
            values = tuple(FIGURES[figure](one) if one is not None else None for one in seen)
            low, high = expected
            findings.append(Finding(engine, figure, low, high, values))
    return Outcome(experiment, tuple(findings))


def _seen(
    block: BlockData,
    complete: Sequence[BlockData],
    samples: Mapping[str, BlockSamples],
    scenario: Scenario,
    first: str,
) -> Seen | None:
    cell = read_cell(block.facts.cell)
    if cell is None:
        return None
    beside = [
        other
        for other in complete
        if (other.facts.engine, other.facts.cell, other.facts.repeat) == (first, block.facts.cell, block.facts.repeat)
    ]
    measured = beside[-1].measured if beside else ()
    return Seen(block.records, samples.get(block.facts.record_id), cell, scenario.load.script, measured)
