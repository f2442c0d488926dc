"""When the requests of an open loop are due: arrival times on an absolute schedule that never drifts.

The whole schedule follows from the seed, and the workers deal it out among themselves: worker i of n takes the
arrivals i, i + n, i + 2n, ... So the load is one and the same process however many workers there are, and both
engines of a race meet the very same arrivals.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from loadgen.errors import UserError

Arrival = Literal["poisson", "constant", "trace"]


def arrival_offsets_ns(arrival: Arrival, rate: float, seed: str, trace_ns: tuple[int, ...] = ()) -> Iterator[int]:
    """Yield the arrivals of the whole load, ns after its start, without end (a trace ends).

    Args:
        arrival: `poisson` has independent exponential gaps of mean 1/rate; `constant` has equal ones.
        rate: requests per second.
        seed: of the gaps; only `poisson` uses it.
        trace_ns: the arrivals of `trace`, ascending.
    """
    if arrival == "trace":
        yield from trace_ns
    elif arrival == "constant":
        # From the number of the arrival, not from the one before: rounding does not add up.
        for number in itertools.count():
            yield round(number * 1e9 / rate)
    else:
        gaps = random.Random(f"arrivals/{seed}")
        at = 0.0
        while True:
            at += gaps.expovariate(rate)
            yield round(at * 1e9)


def share_of_worker(offsets: Iterator[int], position: int, workers: int) -> Iterator[tuple[int, int]]:
    """Yield (number of the arrival, ns after the start) of those that fall to one worker of several."""
    return itertools.islice(enumerate(offsets), position, None, workers)


def read_trace(path: Path) -> tuple[int, ...]:
    """Read arrivals from a `.jsonl` file: objects whose `t` is seconds after the start, ascending.

    Raises:
        UserError: the file cannot be read or a line is wrong, with its number.
    """
    arrivals: list[int] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    at = float(json.loads(line)["t"])
                except (ValueError, TypeError, KeyError):
                    raise UserError(f'{path}:{number}: expected an object such as {{"t": 1.25}}') from None
                if not 0 <= at < 1e6 or (arrivals and at * 1e9 < arrivals[-1]):
                    raise UserError(f"{path}:{number}: `t` must be seconds after the start, in ascending order")
                arrivals.append(round(at * 1e9))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    if len(arrivals) < 2 or arrivals[-1] == 0:
        raise UserError(f"{path}: a trace needs two arrivals or more")
    return tuple(arrivals)
