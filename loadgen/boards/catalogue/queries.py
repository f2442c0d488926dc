"""The parts that the boards' PromQL has in common.

Series of the client carry engine, scenario and cell; all others carry the engine only. So what the run, scenario and
cell of the board's head choose is a time: while such a block runs. Recorded `client:block:info` tells it, and has one
series without labels while no block runs, which the choice "All" (`.*`) takes in too.
"""

from __future__ import annotations

import string
from collections.abc import Mapping

from loadgen.boards.model import Choice, Query

INFO = "bakeoff_client_block_info"
CHOICES = (
    Choice("run", "Run", "run_id", INFO, newest_first=True),
    Choice("scenario", "Scenario", "scenario", f'{INFO}{{run_id=~"$run"}}'),
    Choice("cell", "Cell", "cell", f'{INFO}{{run_id=~"$run",scenario=~"$scenario"}}'),
    # Engines that run but had no request yet are told by the engine exporter only.
    Choice("engine", "Engine", "engine", f'{{__name__=~"{INFO}|bakeoff_engine_up"}}', several=True),
)
"""In the order in which they stand; each narrows those after it."""
EVERYTHING = ".*"

ENGINE = 'engine=~"$engine"'
"""Selects the chosen engines' series."""
CELL = f'{ENGINE},scenario=~"$scenario",cell=~"$cell"'
"""Selects the client's series of the chosen engines, scenario and cells."""
BLOCK = 'run_id=~"$run",scenario=~"$scenario",cell=~"$cell"'
"""Selects the blocks of the chosen run, scenario and cells."""


def filled(expr: str, seconds: float, chosen: Mapping[str, str]) -> str:
    """A query over so many seconds; `chosen` are regular expressions as PromQL writes them, all where there is none.

    Raises KeyError or ValueError for a dollar sign before anything else.
    """
    everything = {choice.name: EVERYTHING for choice in CHOICES}
    return string.Template(expr).substitute({**everything, **chosen, "__range": f"{round(seconds)}s"})


def chosen(expr: str, legend: str = "{{engine}}") -> Query:
    """`expr` while a chosen block runs. It must hold no `or` outside brackets, which binds less than `and`."""
    return Query(f"{expr}\nand on () client:block:info{{{BLOCK}}}", legend)


def quantile(metric: str, q: float) -> Query:
    """A quantile of one of the client's histograms, by engine, over a minute.

    A histogram without a new value gives NaN, which is not above zero and so is left out.
    """
    return chosen(f"histogram_quantile({q}, sum by (engine, le) (rate({metric}_bucket{{{CELL}}}[1m]))) >= 0")


def worker_quantile(metric: str, q: float) -> Query:
    """The same of a histogram of the load generator's workers, by worker, over half a minute."""
    rates = f"rate({metric}_bucket[30s])"
    return chosen(f"histogram_quantile({q}, sum by (worker, le) ({rates})) >= 0", "{{worker}}")


def mean_of_range(metric: str) -> str:
    """The mean of one of the client's histograms over the time range, by engine, scenario and cell.

    A mean and no quantile: it is exact, where quantiles are as coarse as the buckets (25%).
    """
    return (
        f"sum by (engine, scenario, cell) (increase({metric}_sum{{{CELL}}}[$__range]))\n"
        f"/ (sum by (engine, scenario, cell) (increase({metric}_count{{{CELL}}}[$__range])) > 0)"
    )


def rate_of_range(metric: str) -> str:
    """What one of the client's counters rose by, for each second in which a block of that engine and cell ran."""
    return (
        f"sum by (engine, scenario, cell) (increase({metric}{{{CELL}}}[$__range]))\n"
        f"/ sum by (engine, scenario, cell) (sum_over_time({INFO}{{{CELL}}}[$__range:1s]))"
    )


def above_least(value: str) -> Query:
    """By what share each engine's value is above the least of all engines', cell by cell; the least is left out."""
    return _compared(f"(\n{value}\n) / on (scenario, cell) group_left () min by (scenario, cell) (\n{value}\n) - 1 > 0")


def below_greatest(value: str) -> Query:
    """By what share each engine's value is below the greatest of all engines', cell by cell; that one is left out."""
    share = f"(\n{value}\n) / on (scenario, cell) group_left () max by (scenario, cell) (\n{value}\n)"
    return _compared(f"1 - {share} > 0")


def _compared(expr: str) -> Query:
    return Query(expr, "{{engine}} · {{cell}}", instant=True)
