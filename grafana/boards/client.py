"""The load generator: is it the limit, so that a block decides nothing?"""

from __future__ import annotations

from grafana.boards import reasons
from grafana.boards.board import Board, Panel, Query, Row
from grafana.boards.queries import CELL, ENGINE, chosen, worker_quantile

WORKER = "{{worker}}"
NO_WORKER = "No Locust worker has told anything"
NOT_STARTED = "Locust's master is not watched here, or not up"


def _lag(title: str, about: str, metric: str) -> Panel:
    return Panel(
        title=title,
        about=about,
        unit="s",
        queries=(Query(worker_quantile(metric, 0.99), WORKER),),
        no_data=NO_WORKER,
        minimum=0,
    )


VERDICT = Row(
    "Is the client the limit?",
    (
        Panel(
            title="Limited by the client",
            about="The load generator's verdict on the block that runs, of its newest requests. Good: no. Yes means "
            "that the block decides nothing: more workers (WORKERS=n), or fewer processes beside them.",
            unit="none",
            queries=(
                Query(
                    chosen(
                        f'max by (engine) (bakeoff_client_limited{{{ENGINE},cell=~"$cell"}} '
                        "and on (engine, cell) bakeoff_client_block_info)"
                    )
                ),
            ),
            no_data="No block ran here long enough for a verdict",
            kind="state-timeline",
            width=16,
            height=6,
            states={0: "no", 1: "yes"},
            bad_from=1,
        ),
        Panel(
            title="Workers",
            about="Locust workers connected. Good: as many as were asked for. One less in mid-block costs the block.",
            unit="none",
            queries=(Query(chosen("max(bakeoff_client_workers)"), "workers"),),
            no_data=NOT_STARTED,
            height=6,
            decimals=0,
            minimum=0,
        ),
    ),
)

LAGS = Row(
    "Lags, p99 of 30 s",
    (
        _lag(
            "Loop lag",
            "How late a worker's event loop got round to what was due. Good: below a millisecond. Arrival times come "
            "from the kernel, so a lag delays the next request rather than TTFT.",
            "bakeoff_client_loop_lag_seconds",
        ),
        _lag(
            "Read lag",
            "How long text lay in the kernel before a worker read it. Good: below a millisecond; it does not spoil "
            "TTFT where the kernel stamps arrivals, but it says that the worker is behind.",
            "bakeoff_client_read_lag_seconds",
        ),
        Panel(
            title="Schedule lag",
            about="How late an open loop's requests were sent. Good: below 1 ms. Above 50 ms the load is not the one "
            "asked for, and the alert ScheduleLag fires. A closed loop has no schedule.",
            unit="s",
            queries=(Query(chosen("client:schedule_lag_seconds:p99"), "all workers"),),
            no_data="Only an open loop (a scenario with a rate) has a schedule",
            minimum=0,
            bad_from=0.05,
            never_on_cpu=reasons.OPEN_LOOP,
        ),
    ),
)

WORK = Row(
    "What the workers do",
    (
        Panel(
            title="CPU a worker",
            about="Share of one core that each worker uses. Good: below 70%. A worker is one thread of Python: near "
            "100% it falls behind, which the lags show.",
            unit="percentunit",
            queries=(Query(chosen("max by (worker) (rate(bakeoff_client_worker_cpu_seconds_total[30s]))"), WORKER),),
            no_data=NO_WORKER,
            minimum=0,
            bad_from=0.9,
        ),
        Panel(
            title="Events/s a worker",
            about="Content events that each worker reads. It follows the engine's output; workers should have equal "
            "shares.",
            unit="short",
            queries=(Query(chosen("max by (worker) (rate(bakeoff_client_worker_events_total[30s]))"), WORKER),),
            no_data=NO_WORKER,
            minimum=0,
        ),
        Panel(
            title="Garbage collection",
            about="Share of the time in which a worker stood still for it. Good: below 1%.",
            unit="percentunit",
            queries=(Query(chosen("max by (worker) (rate(bakeoff_client_gc_pause_seconds_total[30s]))"), WORKER),),
            no_data=NO_WORKER,
            minimum=0,
            bad_from=0.05,
        ),
        Panel(
            title="Users and requests in flight",
            about="Good: in a closed loop both are equal, but for the moment between an answer and the next request. "
            "In an open loop users only show that it runs, and what is in flight rises when the engine falls behind.",
            unit="short",
            queries=(
                Query(chosen("max(bakeoff_client_users)"), "users"),
                Query(chosen("max(bakeoff_client_in_flight)"), "in flight"),
            ),
            no_data=NOT_STARTED,
            decimals=0,
            minimum=0,
        ),
        Panel(
            title="Records pending",
            about="Records of requests that are not on disk yet. Good: zero. They wait in memory when the disk is "
            "full.",
            unit="short",
            queries=(Query(chosen("max(bakeoff_client_records_pending)"), "records"),),
            no_data=NOT_STARTED,
            decimals=0,
            minimum=0,
            bad_from=1,
        ),
        Panel(
            title="Requests by outcome",
            about="Requests a second: ok, what the load generator broke off at a block's end (aborted), and kinds of "
            "errors. Good: ok only, and a few aborted when a block ends.",
            unit="reqps",
            queries=(
                Query(chosen(f"sum by (outcome) (rate(bakeoff_client_requests_total{{{CELL}}}[30s]))"), "{{outcome}}"),
            ),
            no_data=reasons.NO_REQUESTS,
            minimum=0,
        ),
    ),
)

BOARD = Board(
    uid="bakeoff-client",
    title="Load generator",
    about="Is the client the limit? CPU, lags and events of each worker, users, requests in flight, records pending.",
    rows=(VERDICT, LAGS, WORK),
)
