"""When the requests of an open loop are due: arrival times on an absolute schedule that never drifts.

The whole schedule follows from the seed, and the workers deal it out among themselves: worker i of n takes the
arrivals i, i + n, i + 2n, ... So the load is one and the same process however many workers there are, and both
engines of a race meet the very same arrivals.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Literal

from loadgen.scenario.shapes import Step

Arrival = Literal["poisson", "constant", "trace"]


def arrival_offsets_ns(
    arrival: Arrival, rate: float, seed: str, trace_ns: tuple[int, ...] = (), step: Step | None = None
) -> Iterator[int]:
    """Yield the arrivals of the whole load, ns after its start, without end (a trace ends).

    Args:
        arrival: `poisson` has independent exponential gaps of mean 1/rate; `constant` has equal ones.
        rate: requests per second.
        seed: of the gaps; only `poisson` uses it.
        trace_ns: the arrivals of `trace`, ascending.
        step: for a time the rate is `rate` x `step.factor`.
    """
    if arrival == "trace":
        yield from trace_ns
        return
    real_time = step.real_time if step is not None else float
    for at in _steady(arrival, rate, seed):
        yield round(real_time(at) * 1e9)


def _steady(arrival: Arrival, rate: float, seed: str) -> Iterator[float]:
    """The arrivals of a steady load, seconds after its start."""
    if arrival == "constant":
        # From the number of the arrival, not from the one before: rounding does not add up.
        for number in itertools.count():
            yield number / rate
    gaps = random.Random(f"arrivals/{seed}")
    at = 0.0
    while True:
        at += gaps.expovariate(rate)
        yield at


def share_of_worker(offsets: Iterator[int], seat: int, workers: int) -> Iterator[tuple[int, int]]:
    """Yield (number of the arrival, ns after the start) of those that fall to one worker of several."""
    return itertools.islice(enumerate(offsets), seat, None, workers)
