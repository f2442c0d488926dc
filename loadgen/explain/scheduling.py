"""Mechanisms of a scheduler: out of blocks, waiting, refusing, and what a step's budget holds."""

from __future__ import annotations

import numpy as np

from loadgen.explain.block_figures import Seen, requests_a_step
from loadgen.explain.mechanism import OUT_OF_BLOCKS, SIDE_BY_SIDE, Figures, Mechanism
from loadgen.message import Message, counted, joined, mark, say
from loadgen.metrics.definitions import ttft_ms
from loadgen.presentation.text import number, percent
from loadgen.record import REJECTIONS, ErrorKind, RequestRecord, http_kind

KV_FULL = 0.95
QUEUED_SHARE, QUEUED_MS, QUEUED = 0.25, 5.0, 0.5
"""A wait is worth a word from this share of TTFT and so many ms on; where no wait is told, from so many requests on."""
QUEUED_STEPS = 3
"""Steps that a wait must last: one that arrives waits for the step under way, and maybe one that is planned."""
GIVEN_UP = {
    *(ErrorKind.STREAM_ERROR, ErrorKind.CHOICE_ERROR, ErrorKind.FINISH_ABORT, ErrorKind.FINISH_ERROR),
    *(ErrorKind.NO_CONTENT, ErrorKind.STALL_TIMEOUT, ErrorKind.TOTAL_TIMEOUT, http_kind(408), http_kind(504)),
}
"""Ends of a request that waited too long; a server that is gone ends them otherwise."""
KSANA_BATCH = 128
"""KsanaLLM's own `max_batch_size`, and so the most that its figures say of those that wait."""
SATURATED = 0.9
PACKED, FITS_STILL, MOST_CACHED = (0.75, 1.1), 2.0, 0.5
"""A step is as full as whole prompts make it within these shares; it could have held twice as many by what had to be
computed; and at least half of the prompts is cached."""
MOST_DECODED = 4
"""Longest answer, in tokens, with which nearly all steps have prompts in them."""


def preempted(seen: Seen) -> Figures | None:
    """Requests that lost their KV cache, or had it moved to the host."""
    rises = {name: seen.rises_surely(name) for name in ("recomputed", "swapped")}
    found = {name: float(round(rise)) for name, rise in rises.items() if rise is not None and rise >= 0.5}
    return found or None


def _preempted(found: Figures) -> str:
    parts: list[str] = []
    if "recomputed" in found:
        parts.append(
            counted(
                round(found["recomputed"]),
                "{count} request was preempted and computed again",
                "{count} requests were preempted and computed again",
            )
        )
    if "swapped" in found:
        parts.append(
            counted(
                round(found["swapped"]),
                "{count} request was moved to host memory",
                "{count} requests were moved to host memory",
            )
        )
    return joined("{a}, {b}", parts)


def kv_full(seen: Seen) -> Figures | None:
    """The KV cache was full or nearly so."""
    peak = seen.own.kv_used_peak if seen.own is not None else None
    return {"kv_used_peak": peak} if peak is not None and peak >= KV_FULL else None


def queued(seen: Seen) -> Figures | None:
    """Requests waited longer for their turn than for the steps under way."""
    own = seen.own
    if own is None:
        return None
    if own.queue_ms is not None and own.ttft_ms is not None:
        if own.queue_ms < max(QUEUED_MS, QUEUED_SHARE * own.ttft_ms) or own.queue_ms < QUEUED_STEPS * _step_ms(seen):
            return None
        return {"queue_ms": own.queue_ms, "ttft_ms": own.ttft_ms}
    return {"waiting": own.waiting} if own.waiting is not None and own.waiting >= QUEUED else None


def _step_ms(seen: Seen) -> float:
    """How long a step takes that a request meets: the mean of gaps between tokens, each weighed by its own length.

    0 where no answer has two tokens.
    """
    gaps = [np.diff(np.asarray(r.event_offsets_ns, dtype=np.float64)) for r in seen.ok if r.events > 1]
    total = sum(float(each.sum()) for each in gaps)
    return sum(float((each**2).sum()) for each in gaps) / total / 1e6 if total > 0 else 0.0


def _queued(found: Figures) -> Message:
    if "waiting" in found:
        return say("{count} requests waited in its queue on average", count=number(found["waiting"]))
    return say(
        "requests waited {queue} ms in its queue, of a TTFT of {ttft} ms",
        queue=number(found["queue_ms"]),
        ttft=number(found["ttft_ms"]),
    )


def limited(seen: Seen) -> Figures | None:
    """Requests were refused, or given up while they waited, or as many wait as its figures can tell."""
    found: Figures = {}
    refused = sum(record.error in REJECTIONS for record in seen.records)
    longest = max((wait for record in seen.ok if (wait := ttft_ms(record)) is not None), default=None)
    given_up = [] if longest is None else [r for r in seen.records if _waited(r) > longest]
    if refused:
        found |= {"refused": refused}
    if given_up:
        found |= {"given_up": len(given_up), "after_ms": min(map(_waited, given_up))}
    if found:
        found["requests"] = len(seen.records)
    most = float(seen.asked.get("max_batch_size") or KSANA_BATCH)
    if seen.kind == "ksana" and seen.own is not None and (seen.own.waiting or 0.0) >= SATURATED * most:
        found |= {"waiting": seen.own.waiting or 0.0, "waiting_most": most}
    return found or None


def _waited(record: RequestRecord) -> float:
    """How long a request waited for nothing, ms; 0 where it did not."""
    return (record.t_done - record.t_send) / 1e6 if record.t_first is None and record.error in GIVEN_UP else 0.0


def _limited(found: Figures) -> str:
    parts = []
    if "refused" in found:
        parts.append(
            say("it refused {count} of {all} requests", count=round(found["refused"]), all=round(found["requests"]))
        )
    if "given_up" in found:
        parts.append(
            say(
                "{count} of {all} requests ended without a token after {wait} ms or more, longer than any other waited",
                count=round(found["given_up"]),
                all=round(found["requests"]),
                wait=number(found["after_ms"]),
            )
        )
    if "waiting" in found:
        parts.append(
            say(
                "its queue was full: {waiting} requests on average, of {most} that it tells at most",
                waiting=number(found["waiting"]),
                most=round(found["waiting_most"]),
            )
        )
    return joined("{a}, {b}", parts)


def whole_prompts(seen: Seen) -> Figures | None:
    """Steps held as many requests as their whole prompts allow, though most of those were in the cache."""
    budget, steps, computed = seen.asked.get("max_tokens_per_step"), seen.rise("steps", "running_n"), seen.computed()
    prompt, held = seen.cell.prompt_tokens, requests_a_step(seen)
    if not budget or not steps or computed is None or held is None or seen.cell.output_tokens > MOST_DECODED:
        return None
    fit, sent = budget // prompt, sum(r.prompt_tokens_wanted for r in seen.sent())
    if seen.cell.trace or not 0 < fit < seen.cell.streams or not sent or computed > MOST_CACHED * sent:
        return None
    least, most = (share * fit for share in PACKED)
    if not least <= held <= most or computed / steps * FITS_STILL > budget:
        return None
    return {"requests_a_step": held, "whole_prompts": fit, "computed_a_step": computed / steps, "budget": budget}


def _whole_prompts(found: Figures) -> Message:
    return say(
        "a step held {held} requests, as many whole prompts as go into {budget} tokens; {computed} had to be computed",
        held=number(found["requests_a_step"]),
        budget=number(found["budget"]),
        computed=number(found["computed_a_step"]),
    )


SCHEDULING = (
    Mechanism(
        "preemption",
        mark("Preemption"),
        preempted,
        _preempted,
        OUT_OF_BLOCKS,
        frozenset({"recomputed", "swapped"}),
    ),
    Mechanism(
        "kv_cache_full",
        mark("KV cache full"),
        kv_full,
        lambda found: say("its KV cache was {share} full", share=percent(found["kv_used_peak"])),
        OUT_OF_BLOCKS,
    ),
    Mechanism(
        "queueing",
        mark("Queueing"),
        queued,
        _queued,
        {
            "vllm": "docs/engines/vllm.md#the-life-of-a-request",
            "ksana": "docs/engines/ksana.md#the-life-of-a-request",
            "": "docs/engines/basics.md#continuous-batching-a-new-batch-for-every-step",
        },
    ),
    Mechanism(
        "queue_limits",
        mark("Queue limits"),
        limited,
        _limited,
        {
            "vllm": "docs/engines/vllm.md#the-life-of-a-request",
            "ksana": "docs/engines/ksana.md#the-life-of-a-request",
            "": f"{SIDE_BY_SIDE}#one-step",
        },
        frozenset({"refused", "given_up", "requests"}),
    ),
    Mechanism(
        "whole_prompts_in_a_step",
        mark("Cached tokens take budget"),
        whole_prompts,
        _whole_prompts,
        {"": f"{SIDE_BY_SIDE}#one-step", "ksana": "docs/engines/ksana.md#one-step"},
    ),
)
