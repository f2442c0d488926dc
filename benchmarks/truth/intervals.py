"""How often do the intervals hold the truth? Run: `python -m benchmarks.truth.intervals --help`.

Blocks are drawn from a known law: request values are lognormal and correlated within a block as a queue's are, blocks
have effects of their own and effects that both engines of a repeat share. Engine b is b = a x 1.05 in law. Printed is
the share of intervals that hold the true ratio, and beside it what two simpler methods would give: a hierarchical
bootstrap (repeats, then requests, percentile interval) and one that takes single requests for the unit.
Two minutes on an idle core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal, stats

from benchmarks.simulated import command_line
from loadgen.statistics.interval import all_but_one, halves, jackknife_error, t_quantile

Floats = npt.NDArray[np.float64]
RATIO = 1.05
TOKENS, USERS = 128, 8
FIGURES = ("mean", "50", "95", "99")


@dataclass(frozen=True)
class Law:
    """Standard deviations of logarithms: of a block's effect (own and shared by the repeat, each), and of a request."""

    block: float
    request: float = 0.5
    correlation: float = 0.6
    """Of neighbouring requests within a block: the logarithms are an AR(1) process."""

    @property
    def total(self) -> float:
        """Standard deviation of one request's logarithm."""
        return float(np.sqrt(2 * self.block**2 + self.request**2))

    def true(self, figure: str) -> float:
        """The figure over all blocks that there could be, engine a."""
        if figure == "mean":
            return float(np.exp(self.total**2 / 2))
        return float(np.exp(stats.norm.ppf(float(figure) / 100) * self.total))


LAWS = {"none": Law(0.0), "small": Law(0.03), "dominating": Law(0.3)}


def draw(
    rng: np.random.Generator, law: Law, trials: int, blocks: int, requests: int, ratio: float = RATIO
) -> tuple[Floats, Floats]:
    """Values of a and b, shape (trials, blocks, requests) each, requests in the order sent."""
    shared = rng.normal(0, law.block, (trials, blocks, 1))
    sides = []
    for factor in (1.0, ratio):
        noise = rng.normal(0, 1, (trials, blocks, requests))
        noise[..., 1:] *= np.sqrt(1 - law.correlation**2)
        latent = signal.lfilter([1.0], [1.0, -law.correlation], noise, axis=-1)
        own = rng.normal(0, law.block, (trials, blocks, 1))
        sides.append(factor * np.exp(shared + own + law.request * latent))
    return sides[0], sides[1]


def pooled(values: Floats, figure: str) -> Floats:
    """The figure over all blocks, shape (..., blocks, requests) to (...). The rate is a closed loop's."""
    flat = values.reshape(*values.shape[:-2], -1)
    if figure == "mean":
        return np.asarray(flat.mean(axis=-1))
    if figure == "rate":
        return np.asarray(TOKENS * USERS / flat.mean(axis=-1))
    return np.asarray(np.percentile(flat, float(figure), axis=-1))


def of_choices(values: Floats, figure: str) -> Floats:
    """The figure over the choices of blocks that give its standard error, shape (choices, trials)."""
    blocks = values.shape[1]
    choices = halves(blocks) if figure.isdigit() else all_but_one(blocks)
    return np.stack([pooled(values[:, list(choice)], figure) for choice in choices])


def log_intervals(a: Floats, b: Floats | None, figure: str) -> tuple[Floats, Floats]:
    """Ours: the t-interval of log(b / a), or of log a; shape (trials,) each."""
    estimate, chosen = np.log(pooled(a, figure)), np.log(of_choices(a, figure))
    if b is not None:
        estimate, chosen = np.log(pooled(b, figure)) - estimate, np.log(of_choices(b, figure)) - chosen
    blocks = a.shape[1]
    kept = blocks // 2 if figure.isdigit() else blocks - 1
    reach = t_quantile(0.975, blocks - 1) * jackknife_error(chosen, blocks, kept)
    return estimate - reach, estimate + reach


def bootstrap_intervals(
    rng: np.random.Generator, a: Floats, b: Floats, figure: str, resamples: int = 200
) -> tuple[Floats, Floats]:
    """Percentile intervals of log(b / a): repeats drawn with replacement in pairs, then requests within each block."""
    low, high = np.empty(len(a)), np.empty(len(a))
    _, blocks, requests = a.shape
    for trial in range(len(a)):
        chosen = rng.integers(blocks, size=(resamples, blocks, 1))
        picks = [rng.integers(requests, size=(resamples, blocks, requests)) for _ in range(2)]
        logs = [np.log(pooled(side[trial][chosen, pick], figure)) for side, pick in zip((a, b), picks, strict=True)]
        low[trial], high[trial] = np.percentile(logs[1] - logs[0], (2.5, 97.5))
    return low, high


def request_intervals(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Of log(b / a) of means, each request taken for an independent one (delta method)."""
    estimate, variance = np.zeros(len(a)), np.zeros(len(a))
    for sign, side in ((-1, a), (1, b)):
        flat = side.reshape(len(side), -1)
        estimate += sign * np.log(flat.mean(axis=1))
        variance += flat.var(axis=1, ddof=1) / flat.shape[1] / flat.mean(axis=1) ** 2
    reach = 1.96 * np.sqrt(variance)
    return estimate - reach, estimate + reach


def holds(interval: tuple[Floats, Floats], truth: float) -> float:
    """Share of intervals that hold the truth."""
    return float(np.mean((interval[0] <= truth) & (truth <= interval[1])))


def rows(args: argparse.Namespace) -> Iterator[str]:
    """The lines of the table, as they are found."""
    names = [f"{'p' * figure.isdigit()}{figure}" for figure in FIGURES]
    yield (
        "| block effects | blocks | " + " | ".join(f"b/a {name}" for name in names) + " | a mean |"
        " a p99 | bootstrap mean | bootstrap p95 | requests, mean |"
    )
    yield "|" + " --- |" * (len(names) + 7)
    for name, law in LAWS.items():
        for blocks in args.blocks:
            rng = np.random.default_rng([args.seed, blocks, int(law.block * 1000)])
            a, b = draw(rng, law, args.trials, blocks, args.requests)
            truth = float(np.log(RATIO))
            cells = [f"{holds(log_intervals(a, b, figure), truth):.1%}" for figure in FIGURES]
            cells += [f"{holds(log_intervals(a, None, f), float(np.log(law.true(f)))):.1%}" for f in ("mean", "99")]
            some = slice(args.bootstraps)
            cells += [
                f"{holds(bootstrap_intervals(rng, a[some], b[some], f), truth):.1%}" if args.bootstraps else "-"
                for f in ("mean", "95")
            ]
            cells.append(f"{holds(request_intervals(a, b), truth):.1%}")
            yield f"| {name} | {blocks} | " + " | ".join(cells) + " |"


def main() -> None:
    """Parse options, print the table."""
    parser = command_line(__doc__)
    parser.add_argument("--trials", type=int, default=2000, help="runs drawn for each line [2000]")
    parser.add_argument("--bootstraps", type=int, default=200, help="of these, bootstrapped as well [200]")
    parser.add_argument("--requests", type=int, default=100, help="requests a block [100]")
    parser.add_argument("--blocks", type=int, nargs="+", default=[2, 3, 4, 6, 10], help="blocks an engine [2 3 4 6 10]")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began = time.monotonic()
    for line in rows(args):
        print(line, flush=True)
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
