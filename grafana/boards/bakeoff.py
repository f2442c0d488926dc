"""The home board: both engines side by side, as the client sees them, and what each uses."""

from __future__ import annotations

import dataclasses

from grafana.boards import reasons
from grafana.boards.board import Board, Panel, Query, Row
from grafana.boards.host import CPU_CORES, HOST_MEMORY
from grafana.boards.queries import (
    CELL,
    ENGINE,
    above_least,
    below_greatest,
    chosen,
    mean_of_range,
    quantile,
    rate_of_range,
)

PER_CELL = "{{engine}} · {{cell}}"
RANGE = (
    "Engines take turns, so it compares the whole time range shown, cell by cell, warm-up included: choose a range "
    "that holds both engines' blocks. The report says how sure a difference is."
)


def _slower(title: str, metric: str, what: str) -> Panel:
    return Panel(
        title=title,
        about=f"By how much an engine's mean {what} is above that of the engine with the least: +100% is twice as "
        f"long. No bar: least of all. {RANGE}",
        unit="percentunit",
        queries=(Query(above_least(mean_of_range(metric)), PER_CELL, instant=True),),
        no_data=reasons.ONE_ENGINE,
        kind="bargauge",
        width=6,
        decimals=1,
        minimum=0,
    )


def _latency(name: str, metric: str, what: str, objective: float | None = None) -> tuple[Panel, ...]:
    def panel(percent: int) -> Panel:
        limit = objective if percent == 95 else None
        line = "" if limit is None else f" The dashed line is the alert's objective as it comes, {limit:g} s."
        return Panel(
            title=f"{name} p{percent}",
            about=f"{what} {percent}% of the requests of the last minute were at least this fast. Low and flat is "
            f"good; a p99 far above p50 is queueing or preemption.{line} Lines closer than 25% may be one bucket's "
            "width apart.",
            unit="s",
            queries=(Query(quantile(metric, percent / 100)),),
            no_data=reasons.NO_REQUESTS,
            minimum=0,
            bad_from=limit,
        )

    return tuple(panel(percent) for percent in (50, 95, 99))


TURNS = Row(
    "Whose turn it is",
    (
        Panel(
            title="Blocks",
            about="Which engine is being measured. Good: short blocks in turn (A B B A). Two at once would mean two "
            "load generators in one Prometheus.",
            unit="none",
            queries=(Query(chosen(f"max by (engine) (bakeoff_client_block_info{{{CELL}}})")),),
            no_data="No block ran here: nothing was measured",
            kind="state-timeline",
            width=16,
            height=5,
            states={1: "block"},
        ),
        Panel(
            title="Alerts that fire",
            about="Prometheus' alerts. Good: none. Its own page /alerts says what to do about each.",
            unit="none",
            queries=(Query('max by (alertname, engine) (ALERTS{alertstate="firing"})', "{{alertname}} {{engine}}"),),
            no_data="No alert fires",
            kind="state-timeline",
            height=5,
            states={1: "fires"},
            bad_from=1,
            never_on_cpu=reasons.GOES_WELL,
        ),
    ),
)

DIFFERENCE = Row(
    "The difference between the engines",
    (
        _slower("TTFT: slower by", "bakeoff_client_ttft_seconds", "time to first token"),
        _slower("TPOT: slower by", "bakeoff_client_tpot_seconds", "time per output token"),
        _slower("E2E: slower by", "bakeoff_client_e2e_seconds", "end-to-end latency"),
        Panel(
            title="Output tokens/s: less by",
            about="By how much an engine's output tokens per second of its blocks are below those of the engine with "
            f"the most: 50% is half as many. No bar: most of all. {RANGE}",
            unit="percentunit",
            queries=(
                Query(below_greatest(rate_of_range("bakeoff_client_output_tokens_total")), PER_CELL, instant=True),
            ),
            no_data=reasons.ONE_ENGINE,
            kind="bargauge",
            width=6,
            decimals=1,
            minimum=0,
        ),
    ),
)

LATENCY = Row(
    "Latency, as the client sees it",
    (
        *_latency("TTFT", "bakeoff_client_ttft_seconds", "Time to first token: from sending to the first text.", 2),
        *_latency("TPOT", "bakeoff_client_tpot_seconds", "Time per output token after the first.", 0.1),
        *_latency("E2E", "bakeoff_client_e2e_seconds", "End to end: from sending to the last text."),
    ),
)

THROUGHPUT = Row(
    "Throughput and errors",
    (
        Panel(
            title="Output tokens/s",
            about="Output tokens of the requests that ended in the last minute, per second. High is good. A request's "
            "tokens count when it ends, so few long requests make steps; Engine internals shows the engine's own "
            "count.",
            unit="short",
            queries=(Query(chosen(f"sum by (engine) (rate(bakeoff_client_output_tokens_total{{{CELL}}}[1m]))")),),
            no_data=reasons.NO_REQUESTS,
            minimum=0,
        ),
        Panel(
            title="Requests/s",
            about="Requests that ended well in the last minute, per second. High is good; in an open loop it should "
            "equal the rate asked for.",
            unit="reqps",
            queries=(
                Query(chosen(f'sum by (engine) (rate(bakeoff_client_requests_total{{{CELL},outcome="ok"}}[1m]))')),
            ),
            no_data=reasons.NO_REQUESTS,
            minimum=0,
        ),
        Panel(
            title="Failed requests",
            about="Share of the requests of the last 30 s that failed. Good is zero: what failed has no latency, so an "
            "engine that drops its slow requests looks fast. Above 1% the alert ErrorRatio fires.",
            unit="percentunit",
            queries=(Query(chosen(f"client:requests_failed:ratio{{{ENGINE}}}")),),
            no_data=reasons.NO_REQUESTS,
            minimum=0,
            bad_from=0.01,
        ),
    ),
)

MEMORY = Row(
    "Memory and energy",
    (
        Panel(
            title="GPU memory",
            about="What each engine's processes hold; where these cannot be told apart, what all GPUs' hold while its "
            "block runs. vLLM takes nearly all at its start, so read it with the KV cache beside it.",
            unit="bytes",
            queries=(
                Query(chosen(f"engine:gpu_memory_used_bytes:sum{{{ENGINE}}}")),
                Query(chosen("sum(bakeoff_gpu_memory_reserved_bytes)"), "reserved by the driver"),
                Query(chosen("sum(bakeoff_gpu_memory_total_bytes)"), "all GPUs together"),
            ),
            no_data=reasons.NO_GPU,
            minimum=0,
            gray=("reserved by the driver", "all GPUs together"),
            never_on_cpu=reasons.GPU,
        ),
        Panel(
            title="KV cache in use",
            about="Share of the KV cache that requests hold. Good: high without touching 100%; there, requests wait "
            "or lose their cache (see Engine internals).",
            unit="percentunit",
            queries=(Query(chosen(f"engine:kv_cache_used:ratio{{{ENGINE}}}")),),
            no_data="KsanaLLM and llama.cpp do not tell this; vLLM does while it runs",
            minimum=0,
            maximum=1,
            bad_from=0.95,
            not_told={"llamacpp": reasons.LLAMACPP_SAYS_NOT, "ksana": "KsanaLLM does not tell this"},
        ),
        Panel(
            title="Output tokens per joule",
            about="Output tokens for each joule that the engine's GPUs draw; where its processes cannot be told "
            "apart, all GPUs while its block runs. High is good; at one stream it is always low, so compare at the "
            "same load.",
            unit="short",
            queries=(Query(chosen(f"engine:tokens_per_joule:ratio{{{ENGINE}}}")),),
            no_data="No GPU is watched here, so no energy is known",
            minimum=0,
            never_on_cpu=reasons.GPU,
        ),
        dataclasses.replace(HOST_MEMORY, width=12),
        dataclasses.replace(CPU_CORES, width=12),
    ),
)

BOARD = Board(
    uid="bakeoff",
    title="Bake-off",
    about="Both engines side by side: latency, throughput, errors, memory and energy, and the difference between them.",
    rows=(TURNS, DIFFERENCE, LATENCY, THROUGHPUT, MEMORY),
)
