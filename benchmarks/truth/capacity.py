"""How often does the interval of a search for capacity hold the truth? Run: `python -m benchmarks.truth.capacity`.

Searches, in virtual time, of a single server with Poisson arrivals, service times constant (D) or exponential (M),
whose capacity is known on paper. The time is that of the steps until their last answer, without ending them early.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass

import numpy as np

from loadgen.capacity.search import CapacitySearch, Found, Outcome
from loadgen.metrics.slo import Slo
from loadgen.scenario.capacity import FindCapacity
from loadgen.statistics.metrics import Floats

WARMUP = 10


@dataclass(frozen=True)
class Queue:
    """One server, an SLO on the time from arrival to the end of service, and the sizes of a search."""

    service: str
    per_s: float
    limit_s: float
    share: float
    precision: float
    requests: int

    def meets(self, rate: float) -> float:
        """The share of requests that are within the limit in the long run: Erlang (1909); exponential sojourn."""
        if self.service == "M":
            return 1 - math.exp(-(self.per_s - rate) * self.limit_s)
        one = 1 / self.per_s
        wait = self.limit_s - one
        late = [rate * (wait - k * one) for k in range(int(wait / one) + 1)]
        return (1 - rate * one) * sum((-x) ** k / math.factorial(k) * math.exp(x) for k, x in enumerate(late))

    def capacity(self) -> float:
        """The rate at which just `share` meet the limit."""
        low, high = 0.01 * self.per_s, 0.999 * self.per_s
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.meets(middle) >= self.share else (low, middle)
        return low

    def step(self, rng: np.random.Generator, rate: float, requests: int) -> tuple[Floats, float]:
        """Strains of a step's measured requests, from an idle server on (Lindley), and its seconds."""
        count = requests + WARMUP
        gaps = rng.exponential(1 / rate, count)
        served = np.full(count, 1 / self.per_s) if self.service == "D" else rng.exponential(1 / self.per_s, count)
        walk = np.concatenate([[0.0], np.cumsum(served[:-1] - gaps[1:])])
        took = walk - np.minimum.accumulate(walk) + served
        return took[WARMUP:] / self.limit_s, float(gaps.sum() + took[-1])

    def search(self, rng: np.random.Generator) -> tuple[Found, float]:
        """Search once, from a load between a quarter and a half of what the server can do; the result and seconds."""
        start = float(f"{self.per_s / 4 * rng.uniform(1, 2):.4g}")
        settings = FindCapacity.model_validate({"of": "rate", "from": start, "precision": self.precision})
        slo = Slo(ttft_ms=1000 * self.limit_s, percentile=100 * self.share)
        fixed = {"start": start, "most": None, "precision": self.precision, "whole": False, "share": self.share}
        search = CapacitySearch(
            **fixed,  # type: ignore[arg-type]
            patience=lambda load: settings.most_requests(settings.step_requests(self.requests, load, slo)),
        )
        seconds = 0.0
        while (load := search.next_load()) is not None:
            requests = settings.step_requests(self.requests, load, slo)
            strains, took = self.step(rng, load, requests)
            search.tell(load, Outcome((strains,), looks=settings.looks(requests)))
            seconds += took
        return search.found(), seconds


QUEUES = (
    Queue("D", 10, 0.4, 0.95, 0.1, 200),
    Queue("D", 10, 0.4, 0.95, 0.05, 200),
    Queue("M", 10, 1.0, 0.95, 0.1, 200),
    Queue("M", 4, 1.5, 0.95, 0.05, 100),
    Queue("M", 20, 2.0, 0.99, 0.1, 200),
)


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--searches", type=int, default=200, help="of each queue")
    searches = parser.parse_args().searches
    print("| server, services/s, limit | precision | holds the truth | median width | open | median error | s |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for queue in QUEUES:
        rng, truth = np.random.default_rng(1), queue.capacity()
        made = [queue.search(rng) for _ in range(searches)]
        held = np.mean([(f.low or 0) <= truth <= (f.high or math.inf) for f, _ in made])
        widths = [f.high / f.low - 1 for f, _ in made if f.low and f.high]
        off = np.median([abs(f.load / truth - 1) for f, _ in made if f.load])
        print(
            f"| {queue.service}, {queue.per_s:g}, {queue.limit_s:g} s, p{100 * queue.share:g} | {queue.precision:g} "
            f"| {held:.1%} | {np.median(widths):.0%} | {1 - len(widths) / searches:.0%} | {off:.1%} "
            f"| {np.mean([s for _, s in made]):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
