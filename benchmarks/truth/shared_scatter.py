"""How often do intervals that share their scatter hold the truth, and how wide are they?

    python -m benchmarks.truth.shared_scatter                  # the table of docs/statistics.md (16 cores: minutes)
    python -m benchmarks.truth.shared_scatter --runs 50 --cells 16 --repeats 2
    python -m benchmarks.truth.shared_scatter --held-out       # laws and shapes that no constant was chosen by
    python -m benchmarks.truth.shared_scatter --power          # repeats that a difference takes, 16 cells

Runs are drawn whose truth is known: requests that are correlated as a queue's are, blocks with effects of their own,
repeats and starts with effects that all cells share, cells of four loads. Three metrics a run, equal engines. `old` is
the t-interval of each cell's own repeats. Printed of each law: how many 95% intervals of cells, of the cells of a load
and of all cells hold the truth; in how many runs Holm's correction over the whole family calls a difference; and the
middle width of new over old.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import multiprocessing.pool
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal, stats

from loadgen.statistics import holm
from loadgen.statistics.interval import t_quantile
from loadgen.statistics.mixture import Mixture
from loadgen.statistics.scatter import PROCESSES, STARTS, Priors, Scatter, shared_scatter
from loadgen.statistics.within import log_variance

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
METRICS = 3
REQUESTS, NEIGHBOURS = 24, 0.6
REQUEST, BLOCK = 0.03, 0.01
"""Standard deviations of the logarithm of one request, and of a block."""
SIGMA = float(np.sqrt(2 * (BLOCK**2 + REQUEST**2 * (1 + NEIGHBOURS) / (1 - NEIGHBOURS) / REQUESTS)))
"""Of the log ratio of one pair of blocks."""


@dataclass(frozen=True)
class Law:
    """How the cells of a run scatter."""

    name: str
    spread: float = 0.0
    """Standard deviation of the logarithm of the cells' scatter."""
    growth: float = 1.0
    """Scatter at the greatest load over that at the least."""
    lengthening: float = 1.0
    """Scatter at the longest prompt over that at the shortest."""
    seen: bool = True
    """Whether a cell's requests scatter as its blocks do; else only the blocks, which then are all of it."""
    tails: float | None = None
    """Degrees of freedom of Student's t that blocks follow; None: normal."""
    disturbed: float = 1.0
    """Scatter of one repeat over that of the others."""
    shifted: float = 0.0
    """Standard deviation of what one repeat has in all cells, in SIGMA."""
    struck: float = 1.0
    """Share of the cells in which that repeat is disturbed or shifted."""
    common: float = 0.0
    """Standard deviation of what each repeat has in all cells, in SIGMA."""
    priors: Priors = PROCESSES


LAWS = (
    Law("equal scatter"),
    Law("unequal (0.7), requests scatter alike", spread=0.7),
    Law("unequal (0.7), unseen within blocks", spread=0.7, seen=False),
    Law("growing fourfold with load", growth=4.0),
    Law("growing fourfold with load, unseen within blocks", growth=4.0, seen=False),
    Law("tails of t3", seen=False, tails=3),
    Law("one repeat scatters fourfold", disturbed=4.0),
    Law("one repeat shifted by 3", shifted=3.0),
    Law("blocks of a repeat correlated by 0.5", common=1.0),
    Law("starts differ by 1", common=1.0, priors=STARTS),
    Law("starts differ by 3", common=3.0, priors=STARTS),
)


HELD_OUT = (
    Law("unequal (0.4), unseen within blocks", spread=0.4, seen=False),
    Law("unequal (1.0), unseen within blocks", spread=1.0, seen=False),
    Law("unequal (1.0), requests scatter alike", spread=1.0),
    Law("growing fourfold with prompt length", lengthening=4.0),
    Law("growing fourfold with prompt length, unseen within blocks", lengthening=4.0, seen=False),
    Law("tails of t4", seen=False, tails=4),
    Law("one repeat scatters fourfold in half of its cells", disturbed=4.0, struck=0.5),
    Law("one repeat shifted by 3 in half of its cells", shifted=3.0, struck=0.5),
    Law("blocks of a repeat correlated by 0.5, unequal (0.4)", spread=0.4, seen=False, common=1.0),
    Law("starts differ by 2", common=2.0, priors=STARTS),
    Law("starts differ by 2, unequal (0.4)", spread=0.4, seen=False, common=2.0, priors=STARTS),
)
"""Tried after the constants of `loadgen.statistics.scatter` were fixed, so that these can be judged."""

MOST_LOAD = 16.0
LOADS = 4
SHAPES = ((2, 8), (4, 12))
"""Of the held-out runs: loads and prompt lengths."""


def load_of(cells: int, loads: int = LOADS) -> Counts:
    """Which of the loads each cell has, shape (cells,)."""
    return np.arange(cells) % loads


def log_load(cells: int, loads: int = LOADS) -> Floats:
    """Logarithms of the cells' loads, from 1 to 16 and evenly spaced, shape (cells,)."""
    return np.asarray(np.log(MOST_LOAD) * load_of(cells, loads) / (loads - 1))


def draw(rng: np.random.Generator, law: Law, cells: int, repeats: int, loads: int = LOADS) -> tuple[Floats, Floats]:
    """Log ratios of a metric, shape (cells, repeats), and what requests tell of their variance, (cells,)."""
    scale = np.exp(law.spread * rng.standard_normal(cells)) * law.growth ** (load_of(cells, loads) / (loads - 1))
    scale = scale * law.lengthening ** (np.arange(cells) // loads / max(cells // loads - 1, 1))
    scale = scale[:, None] * np.ones(repeats)
    at = rng.integers(repeats)
    struck = np.ones(cells, dtype=bool) if law.struck == 1 else rng.random(cells) < law.struck
    scale[struck, at] *= law.disturbed
    shape = (2, cells, repeats)
    request, block = (REQUEST, BLOCK) if law.seen else (REQUEST / 10, SIGMA / np.sqrt(2))
    noise = rng.standard_normal((*shape, REQUESTS))
    noise[..., 1:] *= np.sqrt(1 - NEIGHBOURS**2)
    within = request * signal.lfilter([1.0], [1.0, -NEIGHBOURS], noise, axis=-1)
    own = (
        rng.standard_normal(shape)
        if law.tails is None
        else rng.standard_t(law.tails, shape) / np.sqrt(law.tails / (law.tails - 2))
    )
    request_scale = scale if law.seen else np.ones_like(scale)
    values = np.exp(request_scale[None, ..., None] * within + (scale * block * own)[..., None])
    effects = SIGMA * law.common * rng.standard_normal(repeats) * np.ones((cells, 1))
    effects[struck, at] += SIGMA * law.shifted * rng.standard_normal()
    y = np.log(values[1].mean(axis=-1)) - np.log(values[0].mean(axis=-1)) + effects
    return y, np.array(
        [log_variance([values[side, cell, r] for side in (0, 1) for r in range(repeats)]) for cell in range(cells)]
    )


def scatter_of(y: Floats, within: Floats, priors: Priors, loads: int = LOADS) -> Scatter:
    """The scatter that the cells of a draw know together."""
    found = shared_scatter(y, within, priors, log_load(len(y), loads))
    if found is None:
        raise ValueError("nothing scatters but what all cells have in common: no law here is so")
    return found


def old(y: Floats) -> tuple[Floats, Floats]:
    """Half-width of each row's t-interval, and its p-value."""
    n = y.shape[1]
    error = y.std(axis=1, ddof=1) / np.sqrt(n)
    return t_quantile(0.975, n - 1) * error, 2 * stats.t.sf(np.abs(y.mean(axis=1)) / error, n - 1)


def one_run(rng: np.random.Generator, law: Law, cells: int, repeats: int, loads: int) -> list[float]:
    """Shares and flags of one run, in the order of `COLUMNS`."""
    family: dict[str, list[float]] = {"new": [], "old": []}
    is_wide: list[bool] = []
    shares = []
    for _ in range(METRICS):
        y, within = draw(rng, law, cells, repeats, loads)
        found = scatter_of(y, within, law.priors, loads)
        each = [
            Mixture(float(row.mean()), v / repeats, w)
            for row, v, w in zip(y, found.variances, found.weights, strict=True)
        ]
        whole = Mixture(float(y.mean()), found.overall[0][0] / repeats, found.overall[1][0])
        p = np.array([one.p_value for one in each])
        of_loads = load_means(y, found, loads)
        half, p_old = old(y)
        half_whole, p_whole = old(y.mean(axis=0)[None])
        width = np.median([one.reach(0.05) for one in each]) / np.median(half)
        held = np.mean([one.p_value > 0.05 for one in of_loads]) if of_loads else np.nan
        shares.append([np.mean(p > 0.05), held, whole.p_value > 0.05, width, whole.reach(0.05) / half_whole[0]])
        shares[-1] += [np.mean(p_old > 0.05), p_whole[0] > 0.05]
        wide = [whole, *of_loads]
        family["new"] += [*p, *(one.p_value for one in wide)]
        is_wide += [*(False for _ in p), *(True for _ in wide)]
        family["old"] += [*p_old, *p_whole]
    alarms = [
        float(holm.adjusted(values, weights).min() <= 0.05)
        for values, weights in ((family["new"], holm.shares(is_wide)), (family["old"], None))
    ]
    cell, load, mean, *rest = np.mean(shares, axis=0).tolist()
    return [cell, load, mean, alarms[0], *rest, alarms[1]]


def load_means(y: Floats, found: Scatter, loads: int = LOADS) -> list[Mixture]:
    """The mean of each load's cells, where they are two or more."""
    groups = [np.flatnonzero(load_of(len(y), loads) == load).tolist() for load in range(loads)]
    return [
        Mixture(float(y[rows].mean()), variances / y.shape[1], weights)
        for rows in groups
        if len(rows) > 1
        for variances, weights in [found.of_mean(rows)]
    ]


COLUMNS = (
    "cells",
    "loads",
    "all cells",
    "false alarms",
    "width",
    "width of all",
    "old cells",
    "old all cells",
    "old false alarms",
)


Task = tuple[tuple[Law, ...], int, tuple[int, int], int, int, int]
"""Laws and the place of one, loads and prompt lengths, repeats, runs and seed."""


def line(task: Task) -> Floats:
    """The mean of a line's runs."""
    laws, place, (loads, lengths), repeats, runs, seed = task
    rng = np.random.default_rng([seed, place, loads * lengths, repeats])
    found = np.array([one_run(rng, laws[place], loads * lengths, repeats, loads) for _ in range(runs)])
    widths = np.median(found[:, 4:6], axis=0)
    return np.concatenate([found[:, :4].mean(axis=0), widths, found[:, 6:].mean(axis=0)])


def rows(args: argparse.Namespace, pool: multiprocessing.pool.Pool) -> Iterator[str]:
    """The lines of the table, as they are found."""
    yield "| law | cells | repeats | " + " | ".join(COLUMNS) + " |"
    yield "|" + " --- |" * (3 + len(COLUMNS))
    parts = max(1, args.runs // 50)
    laws = HELD_OUT if args.held_out else LAWS
    shapes = SHAPES if args.held_out else [(LOADS, cells // LOADS) for cells in args.cells]
    places = range(len(laws)) if args.laws is None else args.laws
    tasks = list(itertools.product([laws], places, shapes, args.repeats))
    split = [(*task, args.runs // parts, args.seed + part) for task in tasks for part in range(parts)]
    found = pool.imap(line, split)
    for _, place, (loads, lengths), repeats in tasks:
        mean = np.mean([next(found) for _ in range(parts)], axis=0)
        shown = [
            "" if np.isnan(value) else f"{value:.2f}" if name.startswith("width") else f"{value:.1%}"
            for name, value in zip(COLUMNS, mean, strict=True)
        ]
        cells = f"{loads} x {lengths}" if args.held_out else loads * lengths
        yield f"| {laws[place].name} | {cells} | {repeats} | " + " | ".join(shown) + " |"


DIFFERENCES = (0.01, 0.02, 0.03, 0.05)
H200_SIGMA = 0.018
"""Scatter of TPOT's log ratio from repeat to repeat, vLLM against KsanaLLM on an H200."""


def found_shares(task: tuple[float, int, int, int, int]) -> Floats:
    """Share of cells, and of runs by their mean, in which a difference in one metric is found: new, then old."""
    difference, cells, repeats, runs, seed = task
    rng = np.random.default_rng([seed, cells, repeats])
    total = np.zeros(4)
    for _ in range(runs):
        family: tuple[list[float], list[float]] = [], []
        is_wide: list[bool] = []
        for number in range(METRICS):
            y, within = draw(rng, LAWS[0], cells, repeats)
            y = y * H200_SIGMA / SIGMA + (np.log1p(difference) if number == 0 else 0.0)
            found = scatter_of(y, within, PROCESSES)
            for row, variances, weights in zip(y, found.variances, found.weights, strict=True):
                family[0].append(Mixture(float(row.mean()), variances / repeats, weights).p_value)
            whole = Mixture(float(y.mean()), found.overall[0][0] / repeats, found.overall[1][0])
            wide = [whole, *load_means(y, found)]
            family[0].extend(one.p_value for one in wide)
            is_wide += [False] * cells + [True] * len(wide)
            family[1].extend([*old(y)[1], *old(y.mean(axis=0)[None])[1]])
        adjusted = holm.adjusted(family[0], holm.shares(is_wide)), holm.adjusted(family[1])
        called = [values[: cells + 1] <= 0.05 for values in adjusted]
        total += [called[0][:-1].mean(), called[0][-1], called[1][:-1].mean(), called[1][-1]]
    return total / runs


def power_rows(args: argparse.Namespace, pool: multiprocessing.pool.Pool) -> Iterator[str]:
    """Of each difference: the fewest repeats at which 80% are found, cell by cell and over all cells."""
    yield "| difference | cells | all cells | old cells | old all cells | found at 2 repeats: cells | all cells |"
    yield "|" + " --- |" * 7
    repeats, parts = range(2, args.most + 1), max(1, args.runs // 25)
    tasks = [
        (d, 16, n, args.runs // parts, args.seed + part) for d in DIFFERENCES for n in repeats for part in range(parts)
    ]
    shares = np.array(pool.map(found_shares, tasks, 1)).reshape(len(DIFFERENCES), len(repeats), parts, 4).mean(axis=2)
    for difference, by_repeats in zip(DIFFERENCES, shares, strict=True):
        enough = [np.flatnonzero(column >= 0.8) for column in by_repeats.T]
        needed = [str(repeats[places[0]]) if places.size else f"more than {args.most}" for places in enough]
        at_two = [f"{share:.0%}" for share in by_repeats[0, :2]]
        yield f"| {difference:.0%} | " + " | ".join([*needed, *at_two]) + " |"


def main(given: Sequence[str] | None = None) -> None:
    """Parse options, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=600, help="runs drawn for each line [600]")
    parser.add_argument("--cells", type=int, nargs="+", default=[4, 16, 48])
    parser.add_argument("--repeats", type=int, nargs="+", default=[2, 3, 4, 6])
    parser.add_argument(
        "--held-out", action="store_true", help="laws that no constant was chosen by; has its own cells"
    )
    parser.add_argument("--laws", type=int, nargs="+", help="only these, counted from 0")
    parser.add_argument("--power", action="store_true", help="repeats needed, in place of coverage")
    parser.add_argument("--most", type=int, default=12, help="of these [12]")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args(given)
    began = time.monotonic()
    with multiprocessing.Pool(args.processes) as pool:
        for text in (power_rows if args.power else rows)(args, pool):
            print(text, flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
