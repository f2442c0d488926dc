"""The load generator: is it the limit, so that a block decides nothing?"""

from __future__ import annotations

import functools

from loadgen.boards.catalogue import reasons
from loadgen.boards.catalogue.queries import CELL, ENGINE, chosen, worker_quantile
from loadgen.boards.model import Board, Panel, Query, Row

NOT_STARTED = "Locust's master is not watched here, or not up"
NOT_WATCHED = "No race watches a machine here: the engine's processes must be on this one"
_of_workers = functools.partial(Panel, no_data="No Locust worker has told anything")
_of_master = functools.partial(Panel, no_data=NOT_STARTED, decimals=0)


def _by_worker(counter: str) -> tuple[Query]:
    return (chosen(f"max by (worker) (rate({counter}[30s]))", "{{worker}}"),)


def _yes_or_no(title: str, text: str, metric: str, no_data: str, *, width: int) -> Panel:
    """Whether something is so of the block that runs; yes is bad."""
    query = chosen(
        f'max by (engine) ({metric}{{{ENGINE},cell=~"$cell"}} and on (engine, cell) bakeoff_client_block_info)'
    )
    return Panel(
        title,
        text,
        "none",
        (query,),
        no_data,
        kind="state-timeline",
        width=width,
        height=6,
        states={0: "no", 1: "yes"},
        bad_from=1,
    )


VERDICT = Row(
    "Is the client the limit?",
    (
        _yes_or_no(
            "Limited by the client",
            "The load generator's verdict on the block that runs, of its newest requests. Good: no. Yes means "
            "that the block decides nothing: more workers (WORKERS=n), or fewer processes beside them.",
            "bakeoff_client_limited",
            "No block ran here long enough for a verdict",
            width=16,
        ),
        _of_master(
            "Workers",
            "Locust workers connected. Good: as many as were asked for. One less in mid-block costs the block.",
            "none",
            (chosen("max(bakeoff_client_workers)", "workers"),),
            height=6,
        ),
    ),
)

MACHINE = Row(
    "Was the machine shared?",
    (
        _yes_or_no(
            "Disturbed by others",
            "Whether something that is not of this stack disturbs the block that runs: CPU, memory or disk taken, "
            "clocks held down, a process stopped. Good: no. Yes marks the block in the report.",
            "bakeoff_client_contention",
            NOT_WATCHED,
            width=12,
        ),
        Panel(
            "Taken by others",
            "Share of the time of a side's cores that processes of others used, and share of the time for which they "
            "kept a side waiting. Good: below 5%.",
            "percentunit",
            (
                chosen(
                    f'max by (side, kind) (bakeoff_client_contention_ratio{{{ENGINE},cell=~"$cell",'
                    'kind=~"others|kept|steal"} and on (engine, cell) bakeoff_client_block_info)',
                    "{{side}}: {{kind}}",
                ),
            ),
            NOT_WATCHED,
            width=12,
            height=6,
            bad_from=0.05,
        ),
    ),
)

LAGS = Row(
    "Lags, p99 of 30 s",
    (
        _of_workers(
            "Loop lag",
            "How late a worker's event loop got round to what was due. Good: below a millisecond. Arrival times come "
            "from the kernel, so a lag delays the next request rather than TTFT.",
            "s",
            (worker_quantile("bakeoff_client_loop_lag_seconds", 0.99),),
        ),
        _of_workers(
            "Read lag",
            "How long text lay in the kernel before a worker read it. Good: below a millisecond; it does not spoil "
            "TTFT where the kernel stamps arrivals, but it says that the worker is behind.",
            "s",
            (worker_quantile("bakeoff_client_read_lag_seconds", 0.99),),
        ),
        Panel(
            "Schedule lag",
            "How late an open loop's requests were sent. Good: below 1 ms. Above 50 ms the load is not the one "
            "asked for, and the alert ScheduleLag fires. A closed loop has no schedule.",
            "s",
            (chosen("client:schedule_lag_seconds:p99", "all workers"),),
            "Only an open loop (a scenario with a rate) has a schedule",
            bad_from=0.05,
        ),
    ),
)

WORK = Row(
    "What the workers do",
    (
        _of_workers(
            "CPU a worker",
            "Share of one core that each worker uses. Good: below 70%. A worker is one thread of Python: near "
            "100% it falls behind, which the lags show.",
            "percentunit",
            _by_worker("bakeoff_client_worker_cpu_seconds_total"),
            bad_from=0.9,
        ),
        _of_workers(
            "Events/s a worker",
            "Content events that each worker reads. It follows the engine's output; workers should have equal shares.",
            "short",
            _by_worker("bakeoff_client_worker_events_total"),
        ),
        _of_workers(
            "Garbage collection",
            "Share of the time in which a worker stood still for it. Good: below 1%.",
            "percentunit",
            _by_worker("bakeoff_client_gc_pause_seconds_total"),
            bad_from=0.05,
        ),
        _of_master(
            "Users and requests in flight",
            "Good: in a closed loop both are equal, but for the moment between an answer and the next request. "
            "In an open loop users only show that it runs, and what is in flight rises when the engine falls behind.",
            "short",
            (chosen("max(bakeoff_client_users)", "users"), chosen("max(bakeoff_client_in_flight)", "in flight")),
        ),
        _of_master(
            "Records pending",
            "Records of requests that are not on disk yet. Good: zero. They wait in memory when the disk is full.",
            "short",
            (chosen("max(bakeoff_client_records_pending)", "records"),),
            bad_from=1,
        ),
        Panel(
            "Requests by outcome",
            "Requests a second: ok, what the load generator broke off at a block's end (aborted), and kinds of "
            "errors. Good: ok only, and a few aborted when a block ends.",
            "reqps",
            (chosen(f"sum by (outcome) (rate(bakeoff_client_requests_total{{{CELL}}}[30s]))", "{{outcome}}"),),
            reasons.NO_REQUESTS,
        ),
    ),
)

BOARD = Board(
    "bakeoff-client",
    "Load generator",
    "Is the client the limit? CPU, lags and events of each worker, users, requests in flight, records pending.",
    (VERDICT, MACHINE, LAGS, WORK),
)
