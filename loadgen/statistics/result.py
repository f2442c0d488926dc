"""The statistics as they stand in `summary.json`: data without words, of a versioned schema.

`python -m loadgen.statistics.result` prints the JSON Schema, which docs/statistics.schema.json holds.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field, SkipValidation

from loadgen.statistics.metrics import HEADLINE, Better
from loadgen.validation import Strict

SCHEMA_VERSION = 1

Side = Literal["a", "b"]
Scatter = Literal["shared", "own"]
Scope = Literal["processes", "starts"]
Verdict = Literal["a", "b", "none", "undecided", "invalid"]
Reason = Literal[
    "difference",
    "within_margin",
    "within_floor",
    "one_repeat",
    "too_noisy",
    "multiplicity",
    "below_floor",
    "few_requests",
    "trend",
    "order",
    "tokens_per_event",
    "mixed",
    "no_valid_pair",
    "not_measured",
    "tpot_basis",
    "not_positive",
    "answer_lengths",
]
"""Why the verdict is what it is.

- `difference` (a, b): the difference is beyond chance, beyond the margin at one end of its interval, and not drift.
- `within_margin` (none): the whole interval lies within the margin; `within_floor`: within the client's own error.
- undecided: `one_repeat`: one block cannot tell drift from difference. `too_noisy`: the interval holds both no
  difference and one beyond the margin. `multiplicity`: beyond chance by itself, but not among this many comparisons
  and looks.
  `below_floor`: less than the client's own error. `few_requests`: fewer requests than the percentile needs. `trend`:
  the ratio itself moved by more than the difference. `order`: the order of blocks and a drift would explain it.
  `tokens_per_event`: so would the numbers of tokens that the engines put into one event (TPOT only).
  `mixed`: each engine is ahead in one of the headline metrics.
- invalid: `no_valid_pair`: no repeat has a block of both engines that counts; `not_measured`: this metric has no values
  there; `tpot_basis`: the stream of an engine does not tell TPOT; `not_positive`: a figure of 0 or less, which has no
  ratio; `answer_lengths`: the figure depends on the answers' length, and they differ in it beyond chance.
"""


class Settings(Strict):
    """What the verdicts go by."""

    alpha: float = Field(default=0.05, gt=0, lt=1, description="false alarms at most, over the whole family")
    margin: float = Field(default=0.02, ge=0, lt=1, description="differences up to this share do not matter")
    floors_ms: dict[str, float] = Field(
        default_factory=dict, description="the client's own error by source (`ttft_ms`), milliseconds"
    )
    headline: tuple[str, ...] = Field(default=HEADLINE, description="metrics in Holm's family, of every cell")


class Estimate(Strict):
    """A figure and its 95% interval; null where too little was measured for one."""

    estimate: float
    ci95: tuple[float, float] | None = None


class Drift(Strict):
    """How the engines moved in the course of the run."""

    a: Estimate = Field(description="a's last block over its first; the interval is of how its blocks scatter")
    b: Estimate
    moved: list[Side] = Field(description="which moved beyond chance, the margin and the difference claimed, if any")
    trend: float | None = Field(description="b over a at the last repeat, over that at the first, by a straight line")
    trend_p: float | None
    order_bias: float | None = Field(
        description="b over a that a drift linear in time would show between equal engines, given the blocks' order"
    )
    order_p: float | None = Field(description="p-value of there being no such drift")


class Judged(Strict):
    """One metric's verdict."""

    metric: str
    unit: str
    better: Better
    headline: bool = Field(description="in Holm's family; others have p-values and intervals of their own only")
    repeats: int = Field(description="repeats with a valid block of both engines; all figures come from these")
    ratio: Estimate | None = Field(description="b over a")
    p_value: float | None
    p_adjusted: float | None = Field(description="by Holm; null outside the family")
    scatter: Scatter = Field(
        default="own",
        description="shared: its scatter is estimated with that of the other cells; own: from its own repeats alone",
    )
    freedom: float | None = Field(
        default=None,
        description="degrees of freedom that its interval is worth: of the Student's t that is as wide for this "
        "standard error; null without an interval",
    )
    verdict: Verdict
    reason: Reason
    faster: Estimate | None = Field(description="by which share the winner is faster; null without a winner")
    detectable: float | None = Field(description="smallest share that this run would have found 4 times in 5")
    further_repeats: int | None = Field(description="that would probably decide it; null where none is needed or known")


class Comparison(Judged):
    """One metric in one cell. The interval rests on blocks; with one repeat, on stretches within the block."""

    a: Estimate | None
    b: Estimate | None
    difference: Estimate | None = Field(description="b minus a, in the metric's unit")
    requests_a: int | None = Field(description="values pooled; null for rates")
    requests_b: int | None
    drift: Drift | None


class Overall(Judged):
    """One metric over all cells: the geometric mean of their ratios."""

    cells: int = Field(description="cells in the mean")
    verdicts: dict[Verdict, int] = Field(description="of the single cells, how many have which verdict")


class LeftOut(Strict):
    """A block that decides nothing."""

    engine: Side
    repeat: int
    reason: SkipValidation[str | None] = Field(description="null: the other engine has no valid block of this repeat")


class CellResult(Strict):
    """One cell."""

    id: str
    verdict: Verdict = Field(description="over the headline metrics")
    reason: Reason
    metrics: dict[str, Comparison]
    left_out: list[LeftOut]


class LoadResult(Strict):
    """The cells of one load, where there are several loads and it has two cells or more."""

    unit: str = Field(description="users, req/s or batch")
    value: float
    verdict: Verdict = Field(description="over the headline metrics")
    reason: Reason
    metrics: dict[str, Overall]


class Statistics(Strict):
    """The comparison of two engines over a run."""

    schema_version: int = Field(default=SCHEMA_VERSION, ge=1)
    a: str
    b: str
    settings: Settings
    scope: Scope = Field(
        default="processes",
        description="what the verdict is true of: processes: the two processes that were measured; starts: any start "
        "of these engines on this machine, because they were started several times",
    )
    starts: int = Field(
        default=1, ge=1, description="starts of both engines that the verdict rests on, independent of each other"
    )
    scatter: Scatter = Field(
        default="own", description="shared: where the headline metrics of at least one cell or of all have it so"
    )
    family: int = Field(
        description="comparisons of Holm's correction; those over several cells share half of the level"
    )
    verdict: Verdict = Field(description="over the headline metrics of `overall`")
    reason: Reason
    overall: dict[str, Overall]
    loads: list[LoadResult] = Field(default_factory=list)
    cells: list[CellResult]


def schema_text() -> str:
    """The JSON Schema as docs/statistics.schema.json holds it."""
    schema = Statistics.model_json_schema(mode="serialization")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema, indent=2) + "\n"


if __name__ == "__main__":
    print(schema_text(), end="")
