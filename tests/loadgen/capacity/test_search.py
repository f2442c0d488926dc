"""The search for capacity: against exact thresholds, noise, and engines whose capacity is known on paper."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.truth.capacity import QUEUES, Queue, decided, first_tokens
from loadgen.capacity.curve import crossing
from loadgen.capacity.search import CapacitySearch, Found, Outcome
from loadgen.metrics.slo import Slo
from loadgen.scenario.capacity import FindCapacity
from loadgen.traffic.arrivals import arrival_offsets_ns
from simulator.batching import BatchingModel, Sequence
from simulator.config import BatchingTiming
from tests.simulator.capacity import capacity, service_s


def search(share=0.95, **fields) -> CapacitySearch:
    known = {"start": 1.0, "most": None, "precision": 0.05, "whole": False, "patience": lambda load: 400}
    return CapacitySearch(share=share, **{**known, **fields})


def seen(met: int, total: int) -> Outcome:
    """So many of so many requests met it, those that missed evenly among them."""
    missed = total - met
    late = np.diff(np.floor(np.arange(total + 1) * missed / total)) > 0 if total else np.array([], dtype=bool)
    return Outcome((np.where(late, 2.0, 0.5),))


def run(searching: CapacitySearch, measure: Callable[[float, int], Outcome], limit=200) -> Found:
    """Let a search take its steps; `measure` is given the load and how many steps it had before."""
    had: dict[float, int] = {}
    for _ in range(limit):
        load = searching.next_load()
        if load is None:
            return searching.found()
        searching.tell(load, measure(load, had.get(load, 0)))
        had[load] = had.get(load, 0) + 1
    raise AssertionError(f"no end: {searching.outcomes}")


@settings(deadline=None)
@given(st.integers(1, 300), st.floats(0.5, 0.99), st.integers(1, 4))
def test_equal_requests_are_decided_by_the_power_of_the_share(total, share, looks):
    """Nothing varies, so nothing says that they hang together; all meet it with probability share ** total."""
    for strain, chance, word in ((0.2, share**total, "holds"), (5.0, (1 - share) ** total, "fails")):
        decision = Outcome((np.full(total, strain),), looks=looks).decide(share)
        if abs(chance - 0.025 / looks) > 1e-9:
            assert decision == (word if chance < 0.025 / looks else "undecided")


def test_how_many_requests_a_perfect_step_takes():
    # 0.95 ** 72 is the first power below 2.5%, and 0.95 ** 94 the first below a third of that.
    for looks, least in ((1, 72), (3, 94)):
        for total, decision in ((least - 1, "undecided"), (least, "holds")):
            assert Outcome((np.full(total, 0.5),), looks=looks).decide(0.95) == decision
    assert Outcome().decide(0.95) == "undecided"


def test_misses_in_one_burst_say_less_than_misses_here_and_there():
    scattered = np.where(np.arange(1200) % 10 == 0, 2.0, 0.5)
    burst = np.where(np.arange(1200) < 120, 2.0, 0.5)
    assert Outcome((scattered,)).decide(0.95) == "fails"
    assert Outcome((burst,)).decide(0.95) == "undecided"


def test_a_queue_that_was_never_late_but_moves_slowly_is_worth_few_requests():
    quick = 0.5 + 0.4 * np.sin(np.arange(240) * 2.0)
    slow = 0.5 + 0.4 * np.sin(np.arange(240) * 2 * math.pi / 120)
    assert Outcome((quick,)).decide(0.95) == "holds"
    assert Outcome((slow,)).decide(0.95) == "undecided"


def test_the_interval_holds_the_capacity_of_a_queue_whose_requests_wait_for_each_other():
    queue, rng = Queue("D", 1, 0.1, 0.3), np.random.default_rng(7)
    truth, held, closed = queue.capacity(), 0, 0
    assert waiting_below(truth, 0.1, 0.3) == pytest.approx(0.95), "another sum of Erlang's"
    for _ in range(8):
        result = queue.search(rng, truth)
        assert result.complete
        held += (result.low or 0) <= truth <= (result.high or math.inf)
        closed += result.low is not None and result.high is not None
    assert held >= 6
    assert closed == 8, "an interval without ends would hold anything"


def test_the_benchmarks_truths_are_those_of_long_queues():
    rng = np.random.default_rng(2)
    for queue in (Queue("D", 4, 0.2, 0.2), Queue("D", 8, 0.5, 0.25, share=0.9), Queue("M", 4, 0.2, 0.2)):
        late = queue.step(rng, queue.capacity(), 40_000) > 1
        assert late.mean() == pytest.approx(1 - queue.share, rel=0.2)
    # Of the batching model with one slot the wait is that of M/D/1.
    waits = Queue("batch", 1, 0.1, 0.3).step(rng, 6.0, 20_000) * 0.3
    assert (waits > 0.3).mean() == pytest.approx(1 - waiting_below(6.0, 0.1, 0.3), rel=0.2)


def test_an_idle_server_is_told_from_a_full_one_in_one_step():
    """Four slots, 200 ms a request: 14 requests a second are its capacity."""
    queue, rng = Queue("D", 4, 0.2, 0.2), np.random.default_rng(3)
    for load, word, other in ((8.0, "holds", "fails"), (20.0, "fails", "holds")):
        for requests, least in ((250, 20), (600, 34)):
            decided = [Outcome((queue.step(rng, load, requests),), looks=3).decide(0.95) for _ in range(40)]
            assert decided.count(word) >= least
            assert other not in decided


@settings(deadline=None)
@given(st.floats(0.1, 1000), st.floats(0.2, 5000), st.floats(0.01, 0.3))
def test_an_exact_threshold_is_bracketed(start, truth, precision):
    result = run(search(start=start, precision=precision), lambda load, _: seen(100 * (load <= truth), 100))
    if result.low is None:
        assert truth < start / 500
        assert result.load is None
    else:
        assert result.high is not None and result.load is not None
        assert result.low <= truth < result.high
        assert result.high - result.low <= precision * result.low * 1.001
        assert result.low <= result.load <= result.high
    assert result.complete


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 2000))
def test_users_are_found_to_the_very_number(start, truth):
    tried = []

    def measure(load, _):
        tried.append(load)
        return seen(100 * (load <= truth), 100)

    result = run(search(start=float(start), whole=True, precision=0.001), measure)
    assert all(load == int(load) >= 1 for load in tried)
    assert len(set(tried)) == len(tried), "no load was tried twice"
    assert (result.load, result.low) == (truth, truth)
    assert result.high is not None and result.high - truth <= max(1, 0.001 * truth)


def test_capacity_beyond_the_highest_load_is_left_open():
    result = run(search(most=20.0, start=3.0), lambda load, _: seen(100, 100))
    assert (result.load, result.low, result.high, result.complete) == (None, 20.0, None, True)


def test_no_capacity_at_all_ends_too():
    for whole in (False, True):
        result = run(search(start=8.0, whole=whole), lambda load, _: seen(0, 100))
        assert (result.load, result.low, result.complete) == (None, None, True)
        assert result.high == pytest.approx(1.0 if whole else 8 / 1024, rel=0.001)


@settings(deadline=None, max_examples=25)
@given(st.data(), st.booleans())
def test_whatever_the_steps_say_it_ends(data, whole):
    def measure(load, _):
        total = data.draw(st.integers(1, 100))
        return seen(data.draw(st.integers(0, total)), total)

    searching = search(start=4.0, most=64.0, whole=whole, precision=0.2, patience=lambda load: 100)
    result = run(searching, measure, limit=3000)
    assert result.low is None or result.high is None or result.low < result.high


def test_an_undecided_step_at_a_cliff_is_extended_up_to_a_limit():
    asked: list[float] = []

    def measure(load, had):
        asked.append(load)
        return seen(50 * (load <= 1), 50)

    result = run(search(patience=lambda load: 100), measure)
    assert asked[:2] == [1.0, 2.0], "it seems to hold, and that is enough to go on"
    assert asked.count(1.0) == 2, "50 of 50 decide nothing yet"
    assert result.low == 1.0


def test_all_loads_tell_where_misses_rise():
    """One load that cannot be decided is no reason for an interval that reaches down to half of it."""
    held, rng = 0, np.random.default_rng(1)

    def measure(load, _):
        return Outcome((np.where(rng.random(300) < min(1.0, 0.05 * (load / 10) ** 6), 2.0, 0.5),))

    for _ in range(8):
        result = run(search(patience=lambda load: 1200), measure)
        assert result.load is not None and result.low is not None and result.high is not None
        held += result.low <= 10 <= result.high
        assert 0.88 * result.load <= result.low and result.high <= 1.12 * result.load
        assert result.requests <= 4000
    assert held >= 6


def test_steps_are_longer_once_the_crossing_is_roughly_known_and_end_when_it_is_closely():
    rng, searching, told = np.random.default_rng(2), search(patience=lambda load: 600), []
    while (load := searching.next_load()) is not None:
        searching.tell(load, Outcome((np.where(rng.random(200) < min(1.0, 0.05 * (load / 10) ** 6), 2.0, 0.5),)))
        told.append((searching.near, searching.found()))
    ends = [
        (1 - what.low / what.load, what.high / what.load - 1)
        for _, what in told
        if what.load and what.low and what.high
    ]
    assert [near for near, what in told if what.load] == [max(both) <= 0.3 for both in ends]
    assert [max(both) <= 0.12 for both in ends] == [False] * (len(ends) - 1) + [True]


@pytest.mark.parametrize("queue", [QUEUES[0], QUEUES[3]], ids=["D4", "M4"])
def test_misses_in_clumps_err_to_neither_side(queue):
    """They are fewer than in the long run more often than not: taken at their word they put the crossing too high."""
    rng, truth, found = np.random.default_rng(4), queue.capacity(), []
    for _ in range(100):
        loads = [part * truth for part in (0.5, 0.9, 0.95, 1.0, 1.05, 1.1)]
        found.append(crossing({load: [queue.step(rng, load, 300)] for load in loads}, 1 - queue.share))
    assert abs(float(np.median([one.load for one in found])) / truth - 1) < 0.02
    assert sum(one.low <= truth <= one.high for one in found) >= 92


def test_searches_of_queues_take_few_requests_and_hold_the_truth_as_the_docs_tell():
    made = []
    for seed, queue in enumerate(QUEUES, 50):
        rng, truth = np.random.default_rng(seed), queue.capacity()
        made += [(queue.search(rng, truth), truth) for _ in range(6)]
    assert sum((one.low or 0) <= truth <= (one.high or math.inf) for one, truth in made) >= 28
    assert np.median([one.requests for one, _ in made]) <= 4000
    within = [
        0.88 * (one.load or 0) <= (one.low or 0) and (one.high or math.inf) <= 1.12 * (one.load or 0) for one, _ in made
    ]
    assert sum(within) >= 35


def test_requests_that_had_not_ended_are_no_part_of_the_curve():
    outcome = Outcome((np.array([2.0, 0.5]), np.array([2.0, 0.0, 0.0])), open=2)
    assert [block.tolist() for block in outcome.known] == [[2.0, 0.5], [2.0]]
    assert all(math.isinf(strain) for block in Outcome((np.array([0.5]),), refused=True).known for strain in block)


def test_noise_moves_the_result_little_and_the_interval_holds_the_truth():
    """Requests miss by chance: 2% far below the capacity, 5% at it (the SLO's share), ever more beyond."""
    truth, inside, off = 10.0, 0, []
    for seed in range(12):
        rng = random.Random(seed)

        def measure(load, _, rng=rng):
            missing = min(1.0, 0.02 + 0.03 * (load / truth) ** 12)
            return Outcome((np.array([2.0 * (rng.random() < missing) for _ in range(200)]),))

        result = run(search(patience=lambda load: 1600), measure)
        assert result.load is not None
        inside += (result.low or 0) <= truth <= (result.high or math.inf)
        off.append(abs(result.load / truth - 1))
    assert inside >= 10
    assert sorted(off)[10] < 0.08


# Engines of the simulator's batching model, in its own time: no clock, no machine.


def times_to_first_token(cfg: BatchingTiming, prompt: int, output: int, arrivals: Iterable[int]) -> list[float]:
    """TTFT in ms of each arrival."""
    coming = [Sequence(prompt, output, at) for at in arrivals]
    return [ns / 1e6 for ns in first_tokens(BatchingModel(cfg), coming)]


def search_rate(cfg: BatchingTiming, output: int, limit_ms: float, arrival: str, requests: int) -> Found:
    settings_ = FindCapacity.model_validate({"of": "rate", "from": 0.7, "precision": 0.05})
    slo = Slo(ttft_ms=limit_ms)

    def wanted(load: float) -> int:
        return settings_.step_requests(requests, load, slo)

    def measure(load: float, had: int) -> Outcome:
        arrivals = arrival_offsets_ns(arrival, load, f"{load}/{had}")  # type: ignore[arg-type]
        warmup, count = 10, wanted(load)
        found = times_to_first_token(cfg, 16, output, itertools.islice(arrivals, warmup + count))[warmup:]
        return Outcome((np.array(found) / limit_ms,), looks=settings_.looks(count))

    start = settings_.from_
    return run(search(start=start, patience=lambda load: settings_.most_requests(wanted(load))), measure)


PLAIN = {"prefill_us_per_token": 0, "kv_us_per_token": 0, "emit_gap_us": 0}


@pytest.mark.parametrize(
    ("cfg", "output"),
    [
        (BatchingTiming(base_ms=10, max_num_seqs=8, decode_us_per_sequence=500, **PLAIN), 20),
        (BatchingTiming(base_ms=25, max_num_seqs=2, prefill_us_per_token=100, kv_us_per_token=1, emit_gap_us=0), 6),
        (BatchingTiming(base_ms=4, max_num_seqs=32, kv_us_per_token=2, emit_gap_us=0), 40),
    ],
)
def test_the_rate_that_an_engine_can_take_is_found_within_5_percent(cfg, output):
    truth = capacity(cfg, 16, output).requests_per_s
    result = search_rate(cfg, output, 400, "constant", 100)
    assert result.load == pytest.approx(truth, rel=0.05)
    assert result.low is not None and result.high is not None
    assert result.low * 0.95 <= truth <= result.high * 1.02


def waiting_below(rate: float, service: float, limit: float) -> float:
    """P(wait <= limit) of M/D/1 in Erlang's form."""
    return (1 - rate * service) * sum(
        (-rate * (limit - k * service)) ** k / math.factorial(k) * math.exp(rate * (limit - k * service))
        for k in range(int(limit / service) + 1)
    )


def test_the_rate_at_which_a_queue_keeps_its_percentile_is_found_within_5_percent():
    cfg = BatchingTiming(base_ms=50, max_num_seqs=1, decode_us_per_sequence=0, **PLAIN)
    service = service_s(cfg, 16, 2)
    assert service == pytest.approx(0.1)
    limit = 0.35 - 0.05  # of the wait: the first token comes 50 ms after the first step's start
    low, high = 0.1, 9.99
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if waiting_below(middle, service, limit) >= 0.95 else (low, middle)
    result = search_rate(cfg, 2, 350, "poisson", 10_000)
    assert result.load == pytest.approx(low, rel=0.05)


def test_the_users_that_an_engine_can_take_are_found_exactly():
    # Each of n users adds 2 ms to a step of 10 ms: TPOT is 10 + 2n ms, and 31 ms hold up to 10 users.
    def tpot(users: float) -> float:
        cfg = BatchingTiming(base_ms=10, decode_us_per_sequence=2000, max_num_seqs=int(users), **PLAIN)
        return capacity(cfg, 16, 400).tpot_ms

    result = run(search(start=4.0, whole=True), lambda load, _: seen(100 * (tpot(load) <= 31), 100))
    assert result.load == 10


@pytest.mark.parametrize(("queue", "most"), [(QUEUES[0], 0.1), (QUEUES[2], 0.16)], ids=["D4", "D8"])
def test_a_load_is_decided_to_hold_beyond_its_capacity_as_rarely_as_the_docs_tell(queue, most):
    rng, truth, times = np.random.default_rng(3), queue.capacity(), 100
    at, beyond = ([decided(queue, rng, factor * truth, 600) for _ in range(times)] for factor in (1.0, 1.1))
    assert at.count("holds") <= most * times and beyond.count("holds") <= 0.03 * times
