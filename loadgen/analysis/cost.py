"""What tokens cost, from the price of a GPU hour and a throughput. Pure arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

Interval = tuple[float, float]
MILLION = 1e6
SECONDS_AN_HOUR = 3600.0


def per_million(gpu_hour: float, gpus: int, tokens_per_s: float | None) -> float | None:
    """Money for a million tokens: what the GPUs cost in the time that a million takes.

    Args:
        gpu_hour: price of an hour of one GPU.
        gpus: how many the engine uses.
        tokens_per_s: tokens a second of all of them; None, or 0, gives None.
    """
    if tokens_per_s is None or tokens_per_s <= 0:
        return None
    return gpu_hour * gpus / SECONDS_AN_HOUR * MILLION / tokens_per_s


def per_million_interval(gpu_hour: float, gpus: int, tokens_per_s: Interval | None) -> Interval | None:
    """The interval of that, from the throughput's: its higher end gives the lower. None where an end has no price."""
    if tokens_per_s is None:
        return None
    low, high = (per_million(gpu_hour, gpus, end) for end in (tokens_per_s[1], tokens_per_s[0]))
    return None if low is None or high is None else (low, high)


@dataclasses.dataclass(frozen=True, slots=True)
class Saving:
    """By which share the cheaper engine's tokens cost less than the other's."""

    cheaper: Literal["a", "b"]
    share: float
    ci95: Interval


def saving(verdict: str, ratio: float, ci95: Interval, gpus_a: int, gpus_b: int) -> Saving | None:
    """What the cheaper of two engines saves; None where throughput's verdict names nobody, or its interval holds 0.

    Args:
        verdict: of output throughput: `a` and `b` name the faster engine, all others nobody.
        ratio: throughput of b over that of a; `ci95` its 95% interval, of positive numbers.
        gpus_a: GPUs that a uses, `gpus_b` those of b: a faster engine on more GPUs may be the dearer one.
    """
    if verdict not in ("a", "b"):
        return None
    price, (high, low) = gpus_b / gpus_a / ratio, (gpus_b / gpus_a / end for end in ci95)  # of b over a
    if high < 1:
        return Saving("b", 1 - price, (1 - high, 1 - low))
    if low > 1:
        return Saving("a", 1 - 1 / price, (1 - 1 / low, 1 - 1 / high))
    return None


def at_load(loads: Sequence[float], values: Sequence[float], load: float | None) -> float | None:
    """A figure at a load between those at which it was measured, on straight lines; None beyond them.

    Args:
        loads: where it was measured, rising.
        values: what was measured there.
        load: where it is wanted.
    """
    if load is None or not loads or not loads[0] <= load <= loads[-1]:
        return None
    return float(np.interp(load, loads, values))
