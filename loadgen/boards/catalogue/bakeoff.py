"""The home board: both engines side by side, as the client sees them, and what each uses."""

from __future__ import annotations

import dataclasses
import functools

from loadgen.boards.catalogue import reasons
from loadgen.boards.catalogue.host import CPU_CORES, HOST_MEMORY
from loadgen.boards.catalogue.queries import (
    CELL,
    ENGINE,
    above_least,
    below_greatest,
    chosen,
    mean_of_range,
    quantile,
    rate_of_range,
)
from loadgen.boards.model import Board, Panel, Query, Row

RANGE = (
    "Engines take turns, so it compares the whole time range shown, cell by cell, warm-up included: choose a range "
    "that holds both engines' blocks. It is no verdict: chance alone sets means apart, and the report says how sure a "
    "difference is."
)
WITHOUT = (
    f"sum by (engine, scenario, cell, reason) (increase(bakeoff_client_without_tpot_total{{{CELL}}}[$__range]))\n"
    "/ on (engine, scenario, cell) group_left () sum by (engine, scenario, cell) "
    f'(increase(bakeoff_client_requests_total{{{CELL},outcome="ok"}}[$__range])) > 0'
)
_difference = functools.partial(
    Panel, unit="percentunit", no_data=reasons.ONE_ENGINE, kind="bargauge", width=6, decimals=1
)


def _above(title: str, metric: str, what: str) -> Panel:
    return _difference(
        title,
        f"By how much an engine's mean {what} is above that of the engine with the least: +100% is twice as "
        f"long. No bar: least of all. {RANGE}",
        queries=(above_least(mean_of_range(metric)),),
    )


OBJECTIVE = "SLO"


def _latency(name: str, metric: str, what: str, slo: str = "", no_data: str = reasons.NO_REQUESTS) -> tuple[Panel, ...]:
    """`slo` is what recorded series call the metric whose limit is shown."""

    def panel(percent: int) -> Panel:
        # Without a request there is no line either, and the panel says why.
        line_of = f"slo:{slo}:threshold and on () client:{slo}:slo_quantile{{{ENGINE}}}"
        limit = (chosen(line_of, OBJECTIVE),) if slo and percent == 95 else ()
        line = " The gray line is the limit of the scenario's SLO, where it has one." if limit else ""
        return Panel(
            f"{name} p{percent}",
            f"{what} {percent}% of the requests of the last minute were at least this fast. Low and flat is "
            f"good; a p99 far above p50 is queueing or preemption.{line} Lines closer than 25% may be one bucket's "
            "width apart.",
            "s",
            (quantile(metric, percent / 100), *limit),
            no_data,
            gray=(OBJECTIVE,) if limit else (),
        )

    return tuple(panel(percent) for percent in (50, 95, 99))


TURNS = Row(
    "Whose turn it is",
    (
        Panel(
            "Blocks",
            "Which engine is being measured. Good: short blocks in turn (A B B A). Two at once would mean two "
            "load generators in one Prometheus.",
            "none",
            (chosen(f"max by (engine) (bakeoff_client_block_info{{{CELL}}})"),),
            "No block ran here: nothing was measured",
            kind="state-timeline",
            width=16,
            height=5,
            states={1: "block"},
        ),
        Panel(
            "Alerts that fire",
            "Prometheus' alerts. Good: none. Its own page /alerts says what to do about each.",
            "none",
            (Query('max by (alertname, engine) (ALERTS{alertstate="firing"})', "{{alertname}} {{engine}}"),),
            "No alert fires",
            kind="state-timeline",
            height=5,
            states={1: "fires"},
            bad_from=1,
        ),
    ),
)

DIFFERENCE = Row(
    "How far the means lie apart so far: no verdict, which the report alone has",
    (
        _above("TTFT mean, above the least", "bakeoff_client_ttft_seconds", "time to first token"),
        _above("TPOT mean, above the least", "bakeoff_client_tpot_seconds", "time per output token"),
        _above("E2E mean, above the least", "bakeoff_client_e2e_seconds", "end-to-end latency"),
        _difference(
            "Output tokens/s, below the most",
            "By how much an engine's output tokens per second of its blocks are below those of the engine with "
            f"the most: 50% is half as many. No bar: most of all. {RANGE}",
            queries=(below_greatest(rate_of_range("bakeoff_client_output_tokens_total")),),
        ),
    ),
)

WITHOUT_TPOT = Panel(
    "Requests without TPOT, and why",
    "Share of a cell's requests in the time range whose stream does not tell TPOT. Good: no bar. Above 10% the report "
    "gives the cell no TPOT, and the panels above speak for the others only. clumps: events arrive several at a time, "
    "as from a proxy that buffers. one_arrival, one_event: the whole answer comes at once. tokens_per_event: several "
    "tokens an event, or hidden reasoning, and nobody knows how many the first held. more_events: the server counts "
    "fewer tokens than it sends events.",
    "percentunit",
    (Query(WITHOUT, "{{engine}} · {{cell}} · {{reason}}", instant=True),),
    "All requests that ended here have a TPOT, or none ended",
    kind="bargauge",
    width=24,
    height=5,
    decimals=1,
    bad_from=0.1,
)

LATENCY = Row(
    "Latency, as the client sees it",
    (
        *_latency(
            "TTFT",
            "bakeoff_client_ttft_seconds",
            "Time to first token: from sending to the first text.",
            "ttft_seconds",
        ),
        *_latency(
            "TPOT",
            "bakeoff_client_tpot_seconds",
            "Time per output token after the first.",
            "tpot_seconds",
            reasons.NO_TPOT,
        ),
        WITHOUT_TPOT,
        *_latency("E2E", "bakeoff_client_e2e_seconds", "End to end: from sending to the last text."),
    ),
)

THROUGHPUT = Row(
    "Throughput and errors",
    (
        Panel(
            "Output tokens/s",
            "Output tokens of the requests that ended in the last minute, per second. High is good. A request's "
            "tokens count when it ends, so few long requests make steps; Engine internals shows the engine's own "
            "count.",
            "short",
            (chosen(f"sum by (engine) (rate(bakeoff_client_output_tokens_total{{{CELL}}}[1m]))"),),
            reasons.NO_REQUESTS,
        ),
        Panel(
            "Requests/s",
            "Requests that ended well in the last minute, per second. High is good; in an open loop it should "
            "equal the rate asked for.",
            "reqps",
            (chosen(f'sum by (engine) (rate(bakeoff_client_requests_total{{{CELL},outcome="ok"}}[1m]))'),),
            reasons.NO_REQUESTS,
        ),
        Panel(
            "Failed requests",
            "Share of the requests of the last 30 s that failed. Good is zero: what failed has no latency, so an "
            "engine that drops its slow requests looks fast. Above 1% the alert ErrorRatio fires.",
            "percentunit",
            (chosen(f"client:requests_failed:ratio{{{ENGINE}}}"),),
            reasons.NO_REQUESTS,
            bad_from=0.01,
        ),
    ),
)

GPU = Row(
    "GPU memory and energy",
    (
        Panel(
            "GPU memory",
            "What each engine's processes hold; where these cannot be told apart, what all GPUs' hold while its "
            "block runs. vLLM takes nearly all at its start, so read it with the KV cache beside it.",
            "bytes",
            (
                chosen(f"engine:gpu_memory_used_bytes:sum{{{ENGINE}}}"),
                chosen("sum(bakeoff_gpu_memory_reserved_bytes)", "reserved by the driver"),
                chosen("sum(bakeoff_gpu_memory_total_bytes)", "all GPUs together"),
            ),
            reasons.NO_GPU,
            width=12,
            gray=("reserved by the driver", "all GPUs together"),
        ),
        Panel(
            "Output tokens per joule",
            "Output tokens for each joule that the engine's GPUs draw; where its processes cannot be told "
            "apart, all GPUs while its block runs. High is good; at one stream it is always low, so compare at the "
            "same load.",
            "short",
            (chosen(f"engine:tokens_per_joule:ratio{{{ENGINE}}}"),),
            "No GPU is watched here, so no energy is known",
            width=12,
        ),
    ),
)

MEMORY = Row(
    "Memory and CPU",
    (
        Panel(
            "KV cache in use",
            "Share of the KV cache that requests hold. Good: high without touching 100%; there, requests wait "
            "or lose their cache (see Engine internals).",
            "percentunit",
            (chosen(f"engine:kv_cache_used:ratio{{{ENGINE}}}"),),
            "KsanaLLM and llama.cpp do not tell this; vLLM does while it runs",
            maximum=1,
            bad_from=0.95,
        ),
        dataclasses.replace(HOST_MEMORY, width=8),
        dataclasses.replace(CPU_CORES, width=8),
    ),
)

BOARD = Board(
    "bakeoff",
    "Bake-off",
    "Both engines side by side: latency, throughput, errors, memory and energy, and the difference between them.",
    (TURNS, DIFFERENCE, LATENCY, THROUGHPUT, MEMORY, GPU),
)
