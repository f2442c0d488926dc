"""Why one engine is slower: its queue, batch, caches and its own view of latency."""

from __future__ import annotations

import functools

from loadgen.boards.catalogue import reasons
from loadgen.boards.catalogue.host import CPU_CORES, HOST_MEMORY
from loadgen.boards.catalogue.queries import ENGINE, chosen
from loadgen.boards.model import Board, Panel, Query, Row

_panel = functools.partial(Panel, no_data=reasons.NOT_TOLD, width=6)


def _recorded(series: str, labels: str = "") -> tuple[Query]:
    return (chosen(f"{series}{{{ENGINE}{labels}}}"),)


QUEUE = Row(
    "Queue and batch",
    (
        _panel(
            "Requests that wait",
            "Requests in the engine's queue, mean of 30 s. Good: near zero. A queue that grows says that the load is "
            "more than the engine can serve; TTFT grows with it. KsanaLLM tells it while it works only, and counts no "
            "more than its largest batch.",
            "short",
            _recorded("engine:requests_waiting:mean"),
        ),
        _panel(
            "Time in the queue",
            "From a request's arrival until it was scheduled, mean of 30 s. Where TTFT is high and this is too, the "
            "engine is full; where this is low, prefill or the front end is slow.",
            "s",
            _recorded("engine:queue_time_seconds:mean"),
            no_data="llama.cpp does not tell this; vLLM and KsanaLLM do while requests come",
        ),
        _panel(
            "Requests in the batch",
            "Requests served at once, mean of 30 s. Good: as many as the load has. A smaller batch than the other "
            "engine's under the same load is lost throughput.",
            "short",
            _recorded("engine:requests_running:mean"),
        ),
        _panel(
            "Tokens a step",
            "Prompt and output tokens that go through the model in one step, mean of 30 s. Near the number of "
            "requests: only decoding; far above: prefill shares the steps, which makes decoding uneven. Good: alike "
            "for both engines.",
            "short",
            _recorded("engine:step_tokens:mean"),
            no_data="No engine made a step here",
        ),
    ),
)

CACHE = Row(
    "KV cache",
    (
        _panel(
            "KV cache in use",
            "Share of the KV cache's blocks that requests hold, of the fullest rank. Good: high, but below 95%; "
            "beyond, requests wait or are preempted.",
            "percentunit",
            _recorded("engine:kv_cache_used:ratio"),
            no_data="KsanaLLM and llama.cpp do not tell this; vLLM does while it runs",
            maximum=1,
            bad_from=0.95,
        ),
        _panel(
            "Prefix cache hits",
            "Share of the prompt tokens that the prefix cache had. In a bake-off of distinct prompts it should be "
            "zero for both: an engine with hits does less work than the other.",
            "percentunit",
            _recorded("engine:prefix_cache_hits:ratio"),
            no_data="No prompt was looked up here, or the engine has no prefix cache",
            maximum=1,
        ),
        _panel(
            "Preempted and computed again",
            "Requests a second whose KV cache was taken away, to be computed again. Good: zero. Each is work done "
            "twice.",
            "reqps",
            _recorded("engine:preemptions:rate", ',kind="recompute"'),
            no_data="llama.cpp does not tell this; KsanaLLM tells nothing before the first",
        ),
        _panel(
            "Swapped out",
            "Requests a second whose KV cache was moved to host memory. Good: zero. Each waits for PCIe twice. "
            "A KsanaLLM that is to swap and has no host memory for it computes them again.",
            "reqps",
            _recorded("engine:preemptions:rate", ',kind="swap"'),
            no_data="Only KsanaLLM swaps, and it tells nothing before the first",
        ),
    ),
)

LATENCY = Row(
    "The engine's own latency beside the client's (means of 30 s)",
    (
        _panel(
            "TTFT, as the engine counts it",
            "From a request's arrival at the engine to its first token. Compare with the panel beside it: what is "
            "missing here is spent outside the engine.",
            "s",
            _recorded("engine:ttft_seconds:mean"),
            no_data="llama.cpp does not tell this; vLLM and KsanaLLM do while requests come",
        ),
        _panel(
            "TTFT, as the client sees it",
            "From the first byte sent to the first text, of requests that ended well. Low is good; beside the "
            "engine's own it tells where the time goes.",
            "s",
            _recorded("client:ttft_seconds:mean"),
            no_data=reasons.NO_REQUESTS,
        ),
        _panel(
            "TTFT outside the engine (residual)",
            "The client's TTFT minus the engine's: HTTP front end, network and client. Good: a few milliseconds and "
            "flat. When it grows with the load, the front end is the limit. At the start and end of a block it means "
            "nothing: the two count a request at different moments.",
            "s",
            _recorded("engine:ttft_residual_seconds:mean"),
            no_data="Needs the engine's own TTFT, which llama.cpp does not tell",
            minimum=None,
        ),
        _panel(
            "TPOT, as the engine counts it",
            "Time per output token after the first. Low and flat is good; steps up with the batch are normal.",
            "s",
            _recorded("engine:tpot_seconds:mean"),
            no_data="No request ended here",
        ),
    ),
)

TOKENS = Row(
    "Tokens and outcomes, as the engine counts them",
    (
        _panel(
            "Prompt tokens/s",
            "Prompt tokens taken in, those of the prefix cache included. In a closed loop it follows the output, and "
            "high is good.",
            "short",
            _recorded("engine:prompt_tokens:rate"),
        ),
        _panel(
            "Generated tokens/s",
            "Output tokens. High is good. It should agree with Output tokens/s of Bake-off; if not, the engine counts "
            "tokens that no client got.",
            "short",
            _recorded("engine:generated_tokens:rate"),
        ),
        _panel(
            "Requests that succeeded",
            "Requests a second that the engine ended well. It should agree with Requests/s of Bake-off.",
            "reqps",
            _recorded("engine:requests_succeeded:rate"),
            no_data="llama.cpp does not count requests; vLLM and KsanaLLM do while they run",
        ),
        _panel(
            "Requests that failed",
            "Requests a second that the engine itself ended with an error or a timeout. Good: zero. Failures "
            "that only the client sees (Bake-off) are the connection's or the front end's.",
            "reqps",
            (chosen(f"sum by (engine) (engine:requests_failed:rate{{{ENGINE}}})"),),
            no_data="llama.cpp does not count requests; KsanaLLM tells nothing before its first failure",
        ),
    ),
)

INFO = f"max by (engine, version, model) (last_over_time(bakeoff_engine_info{{{ENGINE}}}[$__range]))"
PROCESS = Row(
    "The engine's processes",
    (
        Panel(
            "Which engines run",
            "What each engine says it is, at any time of the range shown. Good: the versions and the model that "
            "you mean to compare.",
            "none",
            (Query(INFO, instant=True),),
            reasons.NO_EXPORTER,
            kind="table",
            width=12,
            height=6,
            hidden=("Value",),
        ),
        Panel(
            "Answers its health check",
            "Whether the engine is up. Good: up for the whole of its blocks; engines take turns, so down between them.",
            "none",
            (chosen(f"max by (engine) (bakeoff_engine_up{{{ENGINE}}})"),),
            reasons.NO_EXPORTER,
            kind="state-timeline",
            width=12,
            height=6,
            states={0: "down", 1: "up"},
        ),
        HOST_MEMORY,
        CPU_CORES,
        Panel(
            "Age of the newest push",
            "KsanaLLM pushes its metrics. Good: a second or two; beyond 10 s all its figures here are old.",
            "s",
            (chosen(f"time() - max by (engine) (bakeoff_ksana_last_push_timestamp_seconds{{{ENGINE}}})"),),
            "Only KsanaLLM pushes its metrics, and none came",
            bad_from=10,
        ),
        Panel(
            "Pushed points that were dropped",
            "By reason, in the last minute. Good: none. no_room: more series than are held; late, overlapping: two "
            "senders of one name; not_delta, unsupported: sent in another way. They are in no figure here.",
            "none",
            (
                chosen(
                    f"sum by (engine, outcome) (increase(bakeoff_ksana_points_total{{{ENGINE},"
                    'outcome!~"added|gap|restarted"}[1m])) > 0',
                    "{{engine}} · {{outcome}}",
                ),
                chosen("sum by (reason) (increase(bakeoff_ksana_refused_pushes_total[1m])) > 0", "push · {{reason}}"),
            ),
            "Nothing that KsanaLLM pushed was dropped",
            bad_from=1,
            width=24,
        ),
    ),
)

BOARD = Board(
    "bakeoff-engines",
    "Engine internals",
    "Why one engine is slower: queue, batch, KV cache, preemptions, and its own latency beside the client's.",
    (QUEUE, CACHE, LATENCY, TOKENS, PROCESS),
)
