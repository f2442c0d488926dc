"""How fast each engine reads prompts: TTFT by prompt length at the lowest load.

Model: TTFT = fixed + prompt tokens / rate. Least squares over the measured requests gives both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from loadgen.metrics.definitions import ttft_ms
from loadgen.metrics.summary import Floats
from loadgen.runs.folder import BlockData
from loadgen.scenario.cell import read_cell
from loadgen.statistics.interval import Spread, jackknife, slope

Points = tuple[Floats, Floats]
"""Prompt tokens and TTFT in ms of requests, both of shape (requests,)."""


@dataclasses.dataclass(frozen=True, slots=True)
class PrefillFit:
    """One engine's requests at the lowest load, and the line through them."""

    engine: str
    load: float
    prompt_tokens: Floats
    """Of each request, shape (requests,)."""
    ttft_ms: Floats
    fixed_ms: float
    """TTFT of a prompt of no length, by the line."""
    fixed_ci95: tuple[float, float] | None
    """Of the fixed time; None where there are fewer than two repeats."""
    ms_a_token: float
    rate: float | None
    """Prompt tokens a second; None where TTFT does not grow with the prompt."""
    ci95: tuple[float, float] | None
    """Of the rate; None where it has no upper end, or there is too little to tell."""
    least: float | None
    """The interval's lower end where it has no upper one, because TTFT may not grow with the prompt at all."""
    repeats: int


def prefill_fits(blocks: Sequence[BlockData], engines: Sequence[str], used: set[str]) -> list[PrefillFit]:
    """Fit every engine; empty with fewer than two prompt lengths at the lowest load.

    The interval comes from the fits without one repeat each (jackknife); with one repeat from the scatter of requests.
    """
    cells = {block.facts.cell: cell for block in blocks if (cell := read_cell(block.facts.cell)) is not None}
    if not cells:
        return []
    least = min(cell.load for cell in cells.values())
    found = []
    for engine in engines:
        repeats: dict[int, list[tuple[int, float]]] = {}
        for block in blocks:
            cell = cells.get(block.facts.cell)
            if cell is None or cell.load != least or block.facts.engine != engine or block.facts.record_id not in used:
                continue
            waits = [wait for record in block.measured if record.ok and (wait := ttft_ms(record)) is not None]
            repeats.setdefault(block.facts.repeat, []).extend((cell.prompt_tokens, wait) for wait in waits)
        fit = fit_prefill(engine, least, [_points(points) for points in repeats.values()])
        if fit is not None:
            found.append(fit)
    return found


def fit_prefill(engine: str, load: float, repeats: Sequence[Points]) -> PrefillFit | None:
    """Fit one engine's requests, given by repeat; None with fewer than two prompt lengths."""
    repeats = [points for points in repeats if points[0].size]
    if not repeats:
        return None
    tokens, waits = _pooled(repeats)
    line = slope(tokens, waits)
    if line is None:
        return None
    spread: Spread | None = line
    fixed, fixed_spread = _fixed(tokens, waits, line.estimate), None
    if len(repeats) > 1:
        rest = [_pooled([*repeats[:i], *repeats[i + 1 :]]) for i in range(len(repeats))]
        each = [(part.estimate, points) for points in rest if (part := slope(*points)) is not None]
        whole = len(each) == len(repeats)
        spread = jackknife(line.estimate, np.array([estimate for estimate, _ in each])) if whole else None
        others = np.array([_fixed(*points, estimate) for estimate, points in each])
        fixed_spread = jackknife(fixed, others) if whole else None
    return PrefillFit(
        engine=engine,
        load=load,
        prompt_tokens=tokens,
        ttft_ms=waits,
        fixed_ms=fixed,
        fixed_ci95=None if fixed_spread is None else fixed_spread.interval(),
        ms_a_token=line.estimate,
        rate=1000 / line.estimate if line.estimate > 0 else None,
        ci95=_rates(spread),
        least=_least(spread),
        repeats=len(repeats),
    )


def _fixed(tokens: Floats, waits: Floats, ms_a_token: float) -> float:
    """Where the line through the points crosses a length of 0, in ms."""
    return float(waits.mean() - ms_a_token * tokens.mean())


def _rates(spread: Spread | None) -> tuple[float, float] | None:
    """The interval of the rate: 1000 over the ends of the slope's."""
    if spread is None:
        return None
    low, high = spread.interval()
    return (1000 / high, 1000 / low) if low > 0 else None


def _least(spread: Spread | None) -> float | None:
    """The least rate that the slope's interval leaves, where that reaches down to 0."""
    if spread is None:
        return None
    low, high = spread.interval()
    return 1000 / high if low <= 0 < high else None


def _points(points: Sequence[tuple[int, float]]) -> Points:
    array = np.array(points, dtype=np.float64).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def _pooled(repeats: Sequence[Points]) -> Points:
    return np.concatenate([tokens for tokens, _ in repeats]), np.concatenate([waits for _, waits in repeats])
