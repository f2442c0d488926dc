"""What more GPUs are worth: engines that differ in their number alone, each against the one with the fewest. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence

from loadgen.statistics.result import Estimate, Judged, Statistics, Verdict

THROUGHPUT, TTFT, TPOT = "output_tokens_per_s", "ttft_ms.p50", "tpot_ms.mean"


@dataclasses.dataclass(frozen=True, slots=True)
class Step:
    """One engine against the one of its kind with the fewest GPUs, at the same load. None is what is not known."""

    cell: str | None
    """None: over all cells."""
    base: str
    base_gpus: int
    engine: str
    gpus: int
    throughput: Estimate | None
    """Output tokens a second, over the base's."""
    verdict: Verdict
    """On throughput: `b` where more GPUs give more, `a` where they give less."""
    efficiency: Estimate | None
    """Throughput over that of as many GPUs as this one has, if each gave what those of the base do."""
    gpu_more: Estimate | None
    """What each GPU more is worth, in GPUs of the base."""
    ttft: Estimate | None
    """Median, over the base's."""
    tpot: Estimate | None
    """Mean, over the base's."""


def families(gpus: Mapping[str, int], kind: Callable[[str], Hashable]) -> list[list[str]]:
    """Engines that differ in their number of GPUs alone, those with the fewest first; no family where none do.

    Args:
        gpus: how many each engine has.
        kind: what two engines have in common if they differ in nothing else.
    """
    found: dict[Hashable, list[str]] = {}
    for engine in gpus:
        found.setdefault(kind(engine), []).append(engine)
    ordered = [sorted(engines, key=lambda engine: gpus[engine]) for engines in found.values()]
    # Of several with the fewest the first is the base.
    alone = [[engines[0], *(each for each in engines if gpus[each] > gpus[engines[0]])] for engines in ordered]
    return [engines for engines in alone if len(engines) > 1]


def steps(found: Sequence[Statistics], gpus: Mapping[str, int]) -> list[Step]:
    """Read comparisons with a base as what more GPUs are worth: over all cells first, then cell by cell."""
    made = []
    for one in found:
        several = len(one.cells) > 1
        parts: list[tuple[str | None, Mapping[str, Judged]]] = [(None, one.overall)] if several else []
        parts += [(cell.id, cell.metrics) for cell in one.cells]
        made += [_step(cell, one.a, one.b, gpus, metrics) for cell, metrics in parts]
    return made


def _step(cell: str | None, base: str, engine: str, gpus: Mapping[str, int], metrics: Mapping[str, Judged]) -> Step:
    fewest, most = gpus[base], gpus[engine]
    judged = metrics.get(THROUGHPUT)
    throughput = judged.ratio if judged is not None else None
    ttft, tpot = (metrics[key].ratio if key in metrics else None for key in (TTFT, TPOT))
    return Step(
        cell=cell,
        base=base,
        base_gpus=fewest,
        engine=engine,
        gpus=most,
        throughput=throughput,
        verdict=judged.verdict if judged is not None else "invalid",
        efficiency=_each(throughput, lambda ratio: ratio * fewest / most),
        gpu_more=_each(throughput, lambda ratio: (ratio - 1) * fewest / (most - fewest)),
        ttft=ttft,
        tpot=tpot,
    )


def _each(ratio: Estimate | None, of: Callable[[float], float]) -> Estimate | None:
    """A rising function of a ratio, and of both ends of its interval."""
    if ratio is None:
        return None
    ends = ratio.ci95
    return Estimate(estimate=of(ratio.estimate), ci95=None if ends is None else (of(ends[0]), of(ends[1])))
