"""How often does the interval of a search for capacity hold the truth? Run: `python -m benchmarks.truth.capacity`.

With `--decisions`: how often one load, just at the capacity or a tenth beyond it, is decided wrongly.

Searches, in virtual time, of queues with Poisson arrivals whose capacity is known on paper: service times constant (D)
or exponential (M), one server or several, and the simulator's batching model with one slot, which is an M/D/1.
"""

from __future__ import annotations

import argparse
import heapq
import math
from dataclasses import dataclass

import numpy as np

from loadgen.capacity.decision import Decision
from loadgen.capacity.search import CapacitySearch, Found, Outcome
from loadgen.capacity.steps import LONGER
from loadgen.metrics.slo import Slo
from loadgen.scenario.capacity import FindCapacity
from loadgen.statistics.metrics import Floats
from simulator.batching import BatchingModel, Sequence
from simulator.config import BatchingTiming

WARMUP = 10
LOOKS = 3
STATES = 400
"""Of a queue's length, in its stationary distribution; longer ones have no weight at the loads that are asked for."""


@dataclass(frozen=True)
class Queue:
    """Servers, an SLO on the wait, and the sizes of a search."""

    service: str
    """`D`, `M`, or `batch` for the batching model."""
    servers: int
    mean_s: float
    limit_s: float
    """Of the wait."""
    share: float = 0.95
    precision: float = 0.05
    requests: int = 200

    def misses(self, rate: float) -> float:
        """The share of requests that wait longer than the limit in the long run."""
        if rate * self.mean_s >= self.servers:
            return 1.0
        return self._exponential(rate) if self.service == "M" else self._constant(rate)

    def _exponential(self, rate: float) -> float:
        """M/M/c: Erlang's C (by his B) times the tail of the wait."""
        offered, blocked = rate * self.mean_s, 1.0
        for servers in range(1, self.servers + 1):
            blocked = offered * blocked / (servers + offered * blocked)
        busy = offered / self.servers
        waits = blocked / (1 - busy * (1 - blocked))
        return waits * math.exp(-(self.servers / self.mean_s - rate) * self.limit_s)

    def _constant(self, rate: float) -> float:
        """M/D/c, Crommelin, Delay probability formulae (1934): who is in service now has left one service time on."""
        coming = _poisson(rate * self.mean_s, STATES)
        length = np.zeros(STATES)
        length[0] = 1.0
        while True:
            left = np.append(length[: self.servers + 1].sum(), length[self.servers + 1 :])
            after = np.convolve(left, coming)[:STATES]
            if np.abs(after - length).sum() < 1e-12:
                break
            length = after
        whole = int(self.limit_s / self.mean_s + 1e-9)
        most = (whole + 1) * self.servers
        before = _poisson(rate * (self.mean_s * (whole + 1) - self.limit_s), most)
        return 1 - float(np.convolve(left[:most], before)[:most].sum())

    def capacity(self) -> float:
        """The rate at which just `share` stay within the limit."""
        low, high = 0.05 * self.servers / self.mean_s, 0.98 * self.servers / self.mean_s
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self.misses(middle) <= 1 - self.share else (low, middle)
        return low

    def step(self, rng: np.random.Generator, rate: float, requests: int) -> Floats:
        """Strains of a step's measured requests, from an idle engine on."""
        arrivals = np.cumsum(rng.exponential(1 / rate, requests + WARMUP))
        if self.service == "batch":
            return _batched(arrivals, self.mean_s)[WARMUP:] / self.limit_s
        constant = self.service == "D"
        served = np.full(arrivals.size, self.mean_s) if constant else rng.exponential(self.mean_s, arrivals.size)
        free, waits = [0.0] * self.servers, np.empty(arrivals.size)
        for place, (at, took) in enumerate(zip(arrivals.tolist(), served.tolist(), strict=True)):
            start = max(at, free[0])
            waits[place] = start - at
            heapq.heapreplace(free, start + took)
        return waits[WARMUP:] / self.limit_s

    def search(self, rng: np.random.Generator, truth: float) -> Found:
        """Search once, from a load between a fifth and three fifths of what the queue can take."""
        start = float(f"{truth * rng.uniform(0.2, 0.6):.4g}")
        settings = FindCapacity.model_validate({"of": "rate", "from": start, "precision": self.precision})
        slo = Slo(ttft_ms=1000 * self.limit_s, percentile=100 * self.share)

        def once(load: float) -> int:
            return settings.step_requests(self.requests, load, slo)

        search = CapacitySearch(
            start=start,
            most=None,
            precision=self.precision,
            whole=False,
            share=self.share,
            patience=lambda load: settings.most_requests(once(load)),
        )
        while (load := search.next_load()) is not None:
            requests = math.ceil(once(load) * (LONGER if search.near else 1))
            search.tell(load, Outcome((self.step(rng, load, requests),), looks=settings.looks(requests)))
        return search.found()


def _poisson(mean: float, size: int) -> Floats:
    """Probabilities of 0 to `size` - 1."""
    log = np.arange(size) * math.log(mean) - mean - np.array([math.lgamma(n + 1) for n in range(size)])
    return np.asarray(np.exp(log))


def _batched(arrivals: Floats, service_s: float) -> Floats:
    """Waits, seconds, of the batching model with one slot and two steps a request."""
    step_ms = 500 * service_s
    model = BatchingModel(
        BatchingTiming(
            base_ms=step_ms,
            max_num_seqs=1,
            decode_us_per_sequence=0,
            prefill_us_per_token=0,
            kv_us_per_token=0,
            emit_gap_us=0,
        )
    )
    first = first_tokens(model, [Sequence(16, 2, round(at * 1e9)) for at in arrivals])
    return np.array([ns / 1e9 - step_ms / 1000 for ns in first])


def first_tokens(model: BatchingModel, coming: list[Sequence]) -> list[int]:
    """Run requests through a batching model, in its own time. Returns when each got its first token, ns after it came.

    `coming` is in the order in which they come.
    """
    first: dict[int, int] = {}
    now, number = coming[0].arrived, 0
    while True:
        while number < len(coming) and coming[number].arrived <= now:
            model.add(coming[number])
            number += 1
        done = model.step(now)
        if done is None:
            if number == len(coming):
                return [first[id(one)] for one in coming]
            now = coming[number].arrived
            continue
        for sequence, due in zip(done.outputs, done.due, strict=True):
            first.setdefault(id(sequence), due - sequence.arrived)
        now = done.end


QUEUES = (
    Queue("D", 4, 0.2, 0.2),
    Queue("D", 1, 0.1, 0.3),
    Queue("D", 8, 0.5, 0.25, share=0.9),
    Queue("M", 4, 0.2, 0.2),
    Queue("M", 1, 0.1, 0.9),
    Queue("batch", 1, 0.1, 0.3),
)


def decided(queue: Queue, rng: np.random.Generator, load: float, requests: int) -> Decision:
    """Decide a load as a search does: by up to `LOOKS` blocks of so many requests, each from an idle engine on."""
    seen = Outcome(looks=LOOKS)
    for _ in range(LOOKS):
        seen += Outcome((queue.step(rng, load, requests),), looks=LOOKS)
        if (decision := seen.decide(queue.share)) != "undecided":
            return decision
    return "undecided"


def decisions(times: int) -> None:
    """Print how often each queue is decided to hold or to fail at its capacity, and to hold at 1.1 times that."""
    print("| queue | requests a block | holds at capacity | fails at capacity | holds at 1.1 of it |")
    print("| --- | --- | --- | --- | --- |")
    for queue in QUEUES:
        rng, truth = np.random.default_rng(7), queue.capacity()
        for requests in (200, 600):
            at, beyond = ([decided(queue, rng, f * truth, requests) for _ in range(times)] for f in (1.0, 1.1))
            held, failed, over = at.count("holds") / times, at.count("fails") / times, beyond.count("holds") / times
            print(
                f"| {queue.service}/{queue.servers} | {requests} | {held:.1%} | {failed:.1%} | {over:.1%} |", flush=True
            )


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--searches", type=int, default=40, help="of each queue")
    parser.add_argument("--seed", type=int, default=0, help="of the first queue; each has the next")
    parser.add_argument("--decisions", type=int, metavar="TIMES", help="decide single loads so often instead")
    arguments = parser.parse_args()
    if arguments.decisions:
        return decisions(arguments.decisions)
    searches = arguments.searches
    print(
        "| queue, service, limit of the wait | capacity | holds the truth | ends from the estimate | within 12% ",
        end="",
    )
    print("| requests | loads | median error |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    every: list[tuple[bool, int]] = []
    for seed, queue in enumerate(QUEUES, arguments.seed):
        rng, truth = np.random.default_rng(seed), queue.capacity()
        made = [queue.search(rng, truth) for _ in range(searches)]
        held = [(f.low or 0) <= truth <= (f.high or math.inf) for f in made]
        every += zip(held, [f.requests for f in made], strict=True)
        closed = [
            (f.low / f.load - 1, f.high / f.load - 1, f.load / truth - 1) for f in made if f.low and f.load and f.high
        ]
        near = sum(low >= -0.12 and high <= 0.12 for low, high, _ in closed) / searches
        low, high, off = np.median(np.abs(closed), axis=0)
        print(
            f"| {queue.service}/{queue.servers}, {queue.mean_s:g} s, {queue.limit_s:g} s, p{100 * queue.share:g} "
            f"| {truth:.2f} | {sum(held)} of {searches} | -{low:.1%}, +{high:.1%} | {near:.1%} "
            f"| {np.median([f.requests for f in made]):.0f} | {np.median([f.loads for f in made]):.0f} | {off:.1%} |",
            flush=True,
        )
    held_all, requests = zip(*every, strict=True)
    print(
        f"\n{sum(held_all)} of {len(every)} ({np.mean(held_all):.1%}) hold the truth, "
        f"{np.median(requests):.0f} requests in the median."
    )


if __name__ == "__main__":
    main()
