"""The definitions of every metric, and those that one request has. All other numbers derive from these.

The report prints `DEFINITIONS`; `cell_summary` has the figures of many requests. Times are nanoseconds in records
and milliseconds here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from loadgen.message import Message, mark, say
from loadgen.record import RequestRecord, TpotBasis

DEFINITIONS: dict[str, str] = {
    mark("TTFT"): mark(
        "time to first token: arrival of the first content event minus the moment just before the first byte "
        "of the request was written. An empty role event is never a first token; connection set-up is not in "
        "it."
    ),
    mark("TTFT from intended"): mark(
        "the same, counted from when the schedule wanted the request, so that a client that starts late "
        "cannot hide queueing. Equal to TTFT in a closed loop; in a batch load counted from the batch's instant."
    ),
    mark("time to first answer token"): mark(
        "the same as TTFT, until the first content event that holds more than reasoning; TTFT ends with the first "
        "generated token of any kind."
    ),
    mark("TPOT"): mark(
        "time per output token: (arrival of the last content event - arrival of the first) / (output tokens - 1). "
        "Where the first event holds several tokens, or the first arrival three events or more, the tokens behind it "
        "are the divisor. There is none where the stream does not tell it."
    ),
    mark("ITL"): mark(
        "inter-token latency: the gaps between successive content events, always to be read with tokens per "
        "event, because an engine may put several tokens into one event."
    ),
    mark("E2E"): mark("end-to-end latency: arrival of the last content event minus the moment of sending."),
    mark("output tokens"): mark(
        "the server's usage.completion_tokens; where it sends none, the model's tokenizer over the text."
    ),
    mark("output throughput"): mark(
        "output tokens that arrived inside the window / the window's length. Each request's tokens are spread"
        " evenly over its content events and counted by the event's arrival."
    ),
    mark("total throughput"): mark(
        "output throughput plus the prompt tokens of the requests whose first content event arrived inside "
        "the window / the window's length."
    ),
    mark("requests per second"): mark(
        "requests that finished inside the window without an error / the window's length."
    ),
    mark("goodput"): mark(
        "requests that finished inside the window and met every limit of the scenario's SLO / the window's "
        "length. TTFT and E2E count from when the schedule wanted the request; a failed request met none."
    ),
    mark("window"): mark(
        "from the moment when every user has finished its warm-up requests until the last measured request "
        "ends; all users stay busy throughout."
    ),
    mark("measured request"): mark("the first N requests sent inside the window, failures included."),
    mark("batch"): mark(
        "N requests sent at the same instant, the next N when all have ended. Warm-up and window are whole batches. "
        "Throughput is over the batches' own time: what lies between two of them counts nowhere."
    ),
    mark("batch latency"): mark(
        "from the moment when a batch's first request was sent until the last token of its last request; over batches "
        "in which no request failed."
    ),
    mark("first tokens of a batch"): mark(
        "when the first, the median and the last of a batch's requests got their first tokens, counted from when its "
        "first request was sent."
    ),
}

NS_PER_MS = 1e6


def ttft_ms(record: RequestRecord) -> float | None:
    """Time to first token in ms, or None when no content event arrived."""
    return None if record.t_first is None else (record.t_first - record.t_send) / NS_PER_MS


def ttft_from_intended_ms(record: RequestRecord) -> float | None:
    """Time to first token in ms counted from the schedule, or None when no content event arrived."""
    return None if record.t_first is None else (record.t_first - record.t_intended) / NS_PER_MS


def answer_ms(record: RequestRecord) -> float | None:
    """Time to the first token that is no reasoning in ms, or None when none came."""
    return None if record.t_answer is None else (record.t_answer - record.t_send) / NS_PER_MS


NO_TPOT: dict[str, str] = {
    TpotBasis.ONE_EVENT: mark("whole answers come in one event"),
    TpotBasis.ONE_ARRIVAL: mark("whole answers arrive at once, as from a proxy that buffers them"),
    TpotBasis.CLUMPS: mark("events arrive in clumps of {clump}, as from a proxy that buffers them"),
    TpotBasis.TOKENS_PER_EVENT: mark(
        "{tokens} tokens are counted for each event, and nobody knows how many the first held: the server puts several "
        "into one event, or sends not all (hidden reasoning); a tokenizer would tell (--tokenizer)"
    ),
    TpotBasis.MORE_EVENTS: mark("the server counts fewer tokens than it sends events"),
}
"""Why a stream with two tokens or more carries no TPOT."""
MOST_WITHOUT = 0.1
"""Where more than this share of the requests have no TPOT for such a reason, the others speak for none."""


def tpot_ms(record: RequestRecord) -> float | None:
    """Time per output token in ms; None when there are fewer than two tokens or the stream does not tell it."""
    if record.t_first is None or record.t_last is None or record.output_tokens is None or record.output_tokens < 2:
        return None
    tokens = record.output_tokens - 1 if record.tpot_basis is None else record.tpot_tokens
    return (record.t_last - record.t_first) / NS_PER_MS / tokens if tokens else None


def carries_none(record: RequestRecord) -> bool:
    """Whether a request has no TPOT because of how its answer was streamed."""
    return record.tpot_basis in NO_TPOT


def tpots_ms(records: Sequence[RequestRecord]) -> list[float]:
    """TPOT of all requests that have one; none at all where too many lack it."""
    if no_tpot(records) is not None:
        return []
    return [value for record in records if (value := tpot_ms(record)) is not None]


def no_tpot(records: Sequence[RequestRecord]) -> Message | None:
    """Why there is no TPOT over these requests, in words; None where there is, or only for want of tokens."""
    without = [record for record in records if carries_none(record)]
    if len(without) <= MOST_WITHOUT * len(records):
        return None
    why = Counter(str(record.tpot_basis) for record in without).most_common(1)[0][0]
    clumps = sorted(record.events / len(set(record.event_offsets_ns)) for record in without if record.events)
    tokens = tokens_per_event(without) or 0.0
    return say(NO_TPOT[why], clump=f"{clumps[len(clumps) // 2]:.0f}", tokens=f"{tokens:.1f}")


def e2e_ms(record: RequestRecord) -> float | None:
    """End-to-end latency in ms, or None when no content event arrived."""
    return None if record.t_last is None else (record.t_last - record.t_send) / NS_PER_MS


def length_share(record: RequestRecord) -> float | None:
    """Output tokens as a share of those asked for; None where nobody counted them.

    1 where a text that ran to its limit does not split into as many tokens again (`exchange`).
    """
    if record.output_tokens is None or not record.output_tokens_wanted:
        return None
    if record.token_source == "tokenizer" and record.finish_reason == "length":  # noqa: S105
        return 1.0
    return record.output_tokens / record.output_tokens_wanted


def tokens_per_event(records: Iterable[RequestRecord]) -> float | None:
    """Mean output tokens a content event, over the requests whose token count is known."""
    tokens = events = 0
    for record in records:
        if record.output_tokens is not None and record.events:
            tokens += record.output_tokens
            events += record.events
    return tokens / events if events else None
