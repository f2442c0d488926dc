"""Arrivals against what their distribution says, with code that shares nothing with them."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.errors import UserError
from loadgen.scenario.trace import read_trace
from loadgen.traffic.arrivals import Arrival, arrival_offsets_ns, share_of_worker


def merged(arrival: Arrival, rate: float, seed: str, workers: int, count: int) -> list[int]:
    """The first arrivals of a load, put together from the shares of its workers."""
    shares = [
        list(
            itertools.islice(
                share_of_worker(arrival_offsets_ns(arrival, rate, seed), position, workers), count // workers + 1
            )
        )
        for position in range(workers)
    ]
    together = sorted(item for share in shares for item in share)[:count]
    assert [number for number, _ in together] == list(range(count))
    return [offset for _, offset in together]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_poisson_gaps_are_exponential_and_independent(workers: int, seed: str) -> None:
    count, rate = 10_000, 200.0
    arrivals = merged("poisson", rate, seed, workers, count)
    gaps = [(b - a) / 1e9 for a, b in itertools.pairwise([0, *arrivals])]
    # Kolmogorov-Smirnov against 1 - exp(-rate x); the critical value of a 0.1% test is 1.95 / sqrt(n).
    worst = 0.0
    for position, gap in enumerate(sorted(gaps)):
        expected = 1 - math.exp(-rate * gap)
        worst = max(worst, abs(expected - position / count), abs((position + 1) / count - expected))
    assert worst < 1.95 / math.sqrt(count)
    # No memory: neighbouring gaps do not correlate (4 standard errors of a correlation of nothing).
    mean = sum(gaps) / count
    spread = sum((gap - mean) ** 2 for gap in gaps)
    lagged = sum((a - mean) * (b - mean) for a, b in itertools.pairwise(gaps)) / spread
    assert abs(lagged) < 4 / math.sqrt(count)


def test_a_wrong_rate_would_fail_the_same_test() -> None:
    gaps = sorted((b - a) / 1e9 for a, b in itertools.pairwise([0, *merged("poisson", 220.0, "a", 1, 10_000)]))
    worst = max(abs(1 - math.exp(-200.0 * gap) - position / 10_000) for position, gap in enumerate(gaps))
    assert worst > 1.95 / 100


@given(st.floats(0.01, 5000), st.integers(1, 7))
def test_constant_arrivals_never_drift(rate: float, workers: int) -> None:
    far = 1_000_000
    offsets = arrival_offsets_ns("constant", rate, "")
    number, offset = next(item for item in share_of_worker(itertools.islice(offsets, 0, 50), workers - 1, workers))
    assert abs(offset - number * 1e9 / rate) <= 1
    assert round(far * 1e9 / rate) == pytest.approx(far / rate * 1e9, abs=1 + far / rate * 1e-6)


def test_constant_gaps_after_a_million_arrivals_are_still_the_same() -> None:
    late = list(itertools.islice(arrival_offsets_ns("constant", 333.0, ""), 1_000_000, 1_000_004))
    assert all(abs((b - a) - 1e9 / 333) <= 1 for a, b in itertools.pairwise(late))
    assert abs(late[0] - 1_000_000 * 1e9 / 333) <= 1


def test_the_load_is_the_same_for_any_number_of_workers() -> None:
    one = merged("poisson", 50.0, "seed", 1, 500)
    assert merged("poisson", 50.0, "seed", 3, 500) == one
    assert merged("poisson", 50.0, "seed", 8, 500) == one
    assert merged("poisson", 50.0, "other", 1, 500) != one


def test_a_trace_is_replayed_and_ends(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text('{"t": 0.5}\n\n{"t": 0.5, "more": 3}\n{"t": 2}\n')
    arrivals = read_trace(file).arrivals_ns
    assert arrivals == (500_000_000, 500_000_000, 2_000_000_000)
    assert list(arrival_offsets_ns("trace", 1.0, "", arrivals)) == list(arrivals)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"t": 1}\nnot json\n', 2),
        ('{"t": 1}\n{"at": 2}\n', 2),
        ('{"t": 2}\n{"t": 1}\n', 2),
        ('{"t": -1}\n', 1),
        ('{"t": "soon"}\n', 1),
        ('{"t": NaN}\n', 1),
        ("[1]\n", 1),
    ],
)
def test_a_wrong_trace_names_its_line(tmp_path: Path, text: str, line: int) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(text)
    with pytest.raises(UserError, match=f":{line}:"):
        read_trace(file)


def test_a_trace_that_is_missing_or_too_short(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_trace(tmp_path / "none.jsonl")
    (tmp_path / "short.jsonl").write_text('{"t": 1}\n')
    with pytest.raises(UserError, match="two arrivals"):
        read_trace(tmp_path / "short.jsonl")
