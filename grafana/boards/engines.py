"""Why one engine is slower: its queue, batch, caches and its own view of latency."""

from __future__ import annotations

from collections.abc import Mapping

from grafana.boards import reasons
from grafana.boards.board import Board, Panel, Query, Row
from grafana.boards.host import CPU_CORES, HOST_MEMORY
from grafana.boards.queries import ENGINE, chosen

LLAMACPP = {"llamacpp": reasons.LLAMACPP_SAYS_NOT}


def _recorded(
    title: str,
    about: str,
    unit: str,
    series: str,
    *,
    labels: str = "",
    no_data: str = reasons.NOT_TOLD,
    width: int = 8,
    maximum: float | None = None,
    bad_from: float | None = None,
    never_on_cpu: str = "",
    not_told: Mapping[str, str] | None = None,
) -> Panel:
    """A panel of one recorded series."""
    return Panel(
        title=title,
        about=about,
        unit=unit,
        queries=(Query(chosen(f"{series}{{{ENGINE}{labels}}}")),),
        no_data=no_data,
        width=width,
        minimum=None if "residual" in series else 0,
        maximum=maximum,
        bad_from=bad_from,
        never_on_cpu=never_on_cpu,
        not_told=not_told or {},
    )


QUEUE = Row(
    "Queue and batch",
    (
        _recorded(
            "Requests that wait",
            "Requests in the engine's queue, mean of 30 s. Good: near zero. A queue that grows says that the load is "
            "more than the engine can serve; TTFT grows with it. KsanaLLM tells it while it works only.",
            "short",
            "engine:requests_waiting:mean",
            width=6,
        ),
        _recorded(
            "Time in the queue",
            "From a request's arrival until it was scheduled, mean of 30 s. Where TTFT is high and this is too, the "
            "engine is full; where this is low, prefill or the front end is slow.",
            "s",
            "engine:queue_time_seconds:mean",
            no_data="llama.cpp does not tell this; vLLM and KsanaLLM do while requests come",
            width=6,
            not_told=LLAMACPP,
        ),
        _recorded(
            "Requests in the batch",
            "Requests served at once, mean of 30 s. Good: as many as the load has. A smaller batch than the other "
            "engine's under the same load is lost throughput.",
            "short",
            "engine:requests_running:mean",
            width=6,
        ),
        _recorded(
            "Tokens a step",
            "Prompt and output tokens that go through the model in one step, mean of 30 s. Near the number of "
            "requests: only decoding; far above: prefill shares the steps, which makes decoding uneven. Good: alike "
            "for both engines.",
            "short",
            "engine:step_tokens:mean",
            no_data="No engine made a step here",
            width=6,
        ),
    ),
)

CACHE = Row(
    "KV cache",
    (
        _recorded(
            "KV cache in use",
            "Share of the KV cache's blocks that requests hold, of the fullest rank. Good: high, but below 95%; "
            "beyond, requests wait or are preempted.",
            "percentunit",
            "engine:kv_cache_used:ratio",
            no_data="KsanaLLM and llama.cpp do not tell this; vLLM does while it runs",
            width=6,
            maximum=1,
            bad_from=0.95,
            not_told={**LLAMACPP, "ksana": "KsanaLLM does not tell this"},
        ),
        _recorded(
            "Prefix cache hits",
            "Share of the prompt tokens that the prefix cache had. In a bake-off of distinct prompts it should be "
            "zero for both: an engine with hits does less work than the other.",
            "percentunit",
            "engine:prefix_cache_hits:ratio",
            no_data="No prompt was looked up, or none hit yet (KsanaLLM), or the engine has no prefix cache",
            width=6,
            maximum=1,
            not_told={"ksana": "KsanaLLM begins this counter with the first hit"},
        ),
        _recorded(
            "Preempted and computed again",
            "Requests a second whose KV cache was taken away, to be computed again. Good: zero. Each is work done "
            "twice.",
            "reqps",
            "engine:preemptions:rate",
            labels=',kind="recompute"',
            no_data="llama.cpp does not tell this; KsanaLLM tells nothing before the first",
            width=6,
            not_told={**LLAMACPP, "ksana": "KsanaLLM begins this counter with the first such request"},
        ),
        _recorded(
            "Swapped out",
            "Requests a second whose KV cache was moved to host memory. Good: zero. Each waits for PCIe twice.",
            "reqps",
            "engine:preemptions:rate",
            labels=',kind="swap"',
            no_data="Only KsanaLLM swaps, and it tells nothing before the first",
            width=6,
            never_on_cpu=reasons.KSANA,
        ),
    ),
)

LATENCY = Row(
    "The engine's own latency beside the client's (means of 30 s)",
    (
        _recorded(
            "TTFT, as the engine counts it",
            "From a request's arrival at the engine to its first token. Compare with the panel beside it: what is "
            "missing here is spent outside the engine.",
            "s",
            "engine:ttft_seconds:mean",
            no_data="llama.cpp does not tell this; vLLM and KsanaLLM do while requests come",
            width=6,
            not_told=LLAMACPP,
        ),
        _recorded(
            "TTFT, as the client sees it",
            "From the first byte sent to the first text, of requests that ended well. Low is good; beside the "
            "engine's own it tells where the time goes.",
            "s",
            "client:ttft_seconds:mean",
            no_data=reasons.NO_REQUESTS,
            width=6,
        ),
        _recorded(
            "TTFT outside the engine (residual)",
            "The client's TTFT minus the engine's: HTTP front end, network and client. Good: a few milliseconds and "
            "flat. When it grows with the load, the front end is the limit. At the start and end of a block it means "
            "nothing: the two count a request at different moments.",
            "s",
            "engine:ttft_residual_seconds:mean",
            no_data="Needs the engine's own TTFT, which llama.cpp does not tell",
            width=6,
            not_told=LLAMACPP,
        ),
        _recorded(
            "TPOT, as the engine counts it",
            "Time per output token after the first. Low and flat is good; steps up with the batch are normal.",
            "s",
            "engine:tpot_seconds:mean",
            no_data="No request ended here",
            width=6,
        ),
    ),
)

TOKENS = Row(
    "Tokens and outcomes, as the engine counts them",
    (
        _recorded(
            "Prompt tokens/s",
            "Prompt tokens taken in, those of the prefix cache included. In a closed loop it follows the output, and "
            "high is good.",
            "short",
            "engine:prompt_tokens:rate",
            width=6,
        ),
        _recorded(
            "Generated tokens/s",
            "Output tokens. High is good. It should agree with Output tokens/s of Bake-off; if not, the engine counts "
            "tokens that no client got.",
            "short",
            "engine:generated_tokens:rate",
            width=6,
        ),
        _recorded(
            "Requests that succeeded",
            "Requests a second that the engine ended well. It should agree with Requests/s of Bake-off.",
            "reqps",
            "engine:requests_succeeded:rate",
            no_data="llama.cpp does not count requests; vLLM and KsanaLLM do while they run",
            width=6,
            not_told=LLAMACPP,
        ),
        Panel(
            title="Requests that failed",
            about="Requests a second that the engine itself ended with an error or a timeout. Good: zero. Failures "
            "that only the client sees (Bake-off) are the connection's or the front end's.",
            unit="reqps",
            queries=(Query(chosen(f"sum by (engine) (engine:requests_failed:rate{{{ENGINE}}})")),),
            no_data="llama.cpp does not count requests; KsanaLLM tells nothing before its first failure",
            width=6,
            minimum=0,
            not_told={**LLAMACPP, "ksana": "KsanaLLM begins these counters with the first failure"},
        ),
    ),
)

PROCESS = Row(
    "The engine's processes",
    (
        Panel(
            title="Which engines run",
            about="What each engine says it is, at any time of the range shown. Good: the versions and the model that "
            "you mean to compare.",
            unit="none",
            queries=(
                Query(
                    f"max by (engine, version, model) (last_over_time(bakeoff_engine_info{{{ENGINE}}}[$__range]))",
                    instant=True,
                ),
            ),
            no_data=reasons.NO_EXPORTER,
            kind="table",
            width=12,
            height=6,
            hidden=("Value",),
        ),
        Panel(
            title="Answers its health check",
            about="Whether the engine is up. Good: up for the whole of its blocks; engines take turns, so down "
            "between them.",
            unit="none",
            queries=(Query(chosen(f"max by (engine) (bakeoff_engine_up{{{ENGINE}}})")),),
            no_data=reasons.NO_EXPORTER,
            kind="state-timeline",
            width=12,
            height=6,
            states={0: "down", 1: "up"},
        ),
        HOST_MEMORY,
        CPU_CORES,
        Panel(
            title="Age of the newest push",
            about="KsanaLLM pushes its metrics. Good: a second or two; beyond 10 s all its figures here are old.",
            unit="s",
            queries=(
                Query(chosen(f"time() - max by (engine) (bakeoff_ksana_last_push_timestamp_seconds{{{ENGINE}}})")),
            ),
            no_data="Only KsanaLLM pushes its metrics, and none came",
            minimum=0,
            bad_from=10,
            never_on_cpu=reasons.KSANA,
        ),
    ),
)

BOARD = Board(
    uid="bakeoff-engines",
    title="Engine internals",
    about="Why one engine is slower: queue, batch, KV cache, preemptions, and its own latency beside the client's.",
    rows=(QUEUE, CACHE, LATENCY, TOKENS, PROCESS),
)
