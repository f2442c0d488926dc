"""Checks of how engines answer: where usage sits, what an event holds, which parameters they honour."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from itertools import pairwise

from loadgen.endpoints.answers import StreamAnswer
from loadgen.message import joined, mark, say
from loadgen.preflight.finding import (
    CANNOT_TELL,
    NOT_ANSWERED,
    NOT_TOLD,
    ON_PURPOSE,
    Needs,
    Samples,
    all_of,
    compared,
    finding,
)
from loadgen.preflight.prefix_cache import CacheVerdict, judge_prefix_cache
from loadgen.preflight.sample import EngineSample
from loadgen.runs.manifest import ParityFact

PARAMETERS = {
    "temperature": say("whether temperature 1 gives other texts than temperature 0"),
    "seed": say("whether the same seed gives the same text, and another seed another"),
    "top-p": say("whether a tiny top_p gives the greedy text at temperature 1"),
    "stop": say("whether a text ends before its stop string"),
    "max-tokens": say("whether max_tokens alone limits an answer"),
}

CLUMP, LEAST_EVENTS = 1.9, 8
"""Events an arrival from which on they come in clumps, and how many events it takes to tell."""
STATES = {"on": mark("on ({why})"), "off": mark("off ({why})"), "cannot tell": mark("cannot tell ({why})")}
"""Of a prefix cache."""


def check_usage(samples: Samples, _: Needs) -> ParityFact:
    """Where a stream's usage is."""
    values = {
        sample.engine: say(_streams(sample)[-1].usage) if _streams(sample) else NOT_ANSWERED for sample in samples
    }
    return compared(
        "usage",
        values,
        say("which event of a stream carries usage"),
        say("read alike: Bakeoff takes it from any event"),
    )


def check_tokens_per_event(samples: Samples, _: Needs) -> ParityFact:
    """How many tokens an event holds, of one stream alone."""
    values = {sample.engine: _tokens_per_event(_streams(sample)) for sample in samples}
    return compared(
        "tokens-per-event",
        values,
        say("output tokens for each event with text, in one stream alone"),
        say("the verdict on TPOT allows for it; do not compare the gaps between events"),
    )


def check_clumps(samples: Samples, _: Needs) -> ParityFact:
    """Whether the events of the longest answer arrive apart, as TPOT needs."""
    found = {sample.engine: _clump(_streams(sample)) for sample in samples}
    values: dict[str, str] = {}
    for engine, size in found.items():
        apart = say("apart") if size == 1 else say("clumps of {count}", count=f"{size or 0:.0f}")
        values[engine] = NOT_TOLD if size is None else apart
    clumped = any(size is not None and size > 1 for size in found.values())
    why = say(
        "a proxy that buffers (nginx: proxy_buffering off), a gateway that packs events, or an engine that makes "
        "several tokens a step: such a stream carries no TPOT, and none is compared"
    )
    return finding(
        "clumps",
        "noted" if clumped else "unknown" if None in found.values() else "equal",
        say("whether the events of a long answer arrive apart"),
        values,
        why if clumped else say("the longest answer had too few events to tell"),
    )


def _clump(streams: list[StreamAnswer]) -> float | None:
    """Events an arrival, 1 where they come apart; None where there are too few to tell."""
    arrivals = streams[-1].arrivals_ms if streams else ()
    if len(arrivals) < LEAST_EVENTS:
        return None
    gaps = [later - earlier for earlier, later in pairwise(arrivals)]
    apart = min(1.0, 0.1 * (arrivals[-1] - arrivals[0]) / len(gaps))
    size = len(arrivals) / (1 + sum(gap > apart for gap in gaps))
    return size if size >= CLUMP else 1.0


def check_role_event(samples: Samples, _: Needs) -> ParityFact:
    """Whether an empty event comes first, and how long before the text."""
    values: dict[str, str] = {}
    sent = set()
    for sample in samples:
        streams = _streams(sample)
        leads = [stream.role_lead_ms for stream in streams if stream.role_lead_ms is not None]
        if streams:
            sent.add(bool(leads))
        lead = say("{lead} ms before the text", lead=f"{statistics.median(leads):.1f}") if leads else say("none")
        values[sample.engine] = lead if streams else NOT_ANSWERED
    return finding(
        "role-event",
        "noted" if len(sent) > 1 else "unknown" if NOT_ANSWERED in values.values() else "equal",
        say("an empty event that opens the stream; it is never taken for the first token"),
        values,
        say("other tools take it for the first token: their TTFT is not comparable"),
    )


def parameter_checks(samples: Samples, _: Needs) -> list[ParityFact]:
    """Whether each sampling parameter is honoured."""
    return [
        compared(
            name,
            {sample.engine: say(sample.parameters.get(name, CANNOT_TELL)) for sample in samples},
            detail,
            say("leave it out of what you compare; races decode greedily"),
        )
        for name, detail in PARAMETERS.items()
    ]


def check_unknown_fields(samples: Samples, _: Needs) -> ParityFact:
    """What becomes of a field that no server knows."""
    values = {sample.engine: say(sample.unknown_fields) for sample in samples}
    return compared(
        "unknown-fields",
        values,
        say("a request with a field that no server knows"),
        say("an engine that accepts it may ignore a field that the other honours, without a word"),
    )


def check_prefix_caching(samples: Samples, needs: Needs) -> ParityFact:
    """Whether prefix caching is on, by probe, against each other and the scenario."""
    found = {sample.engine: judge_prefix_cache(sample.prefix) for sample in samples}
    values = {engine: say(STATES[verdict.state], why=verdict.why) for engine, verdict in found.items()}
    detail: str = say("whether a prompt that was sent before is answered sooner")
    asked = needs.asked_of(samples, "prefix_caching")
    if len(set(asked.values())) > 1:
        detail = joined("{a}; {b}", [detail, ON_PURPOSE])
    elif (declared := next(iter(asked.values()), None)) is not None:
        detail = joined("{a}; {b}", [detail, say("the scenario declares it {state}", state=_word(declared))])
    problem = _cache_problem(found, asked)
    if problem:
        return finding("prefix-caching", "blocking", detail, values, problem)
    if len({verdict.state for verdict in found.values()} - {CANNOT_TELL}) > 1:
        return finding("prefix-caching", "noted", detail, values)
    states = {verdict.state for verdict in found.values()}
    return finding(
        "prefix-caching",
        "unknown" if CANNOT_TELL in states else "equal",
        detail,
        values,
        say("look at the engines' settings: the probe could not tell"),
    )


def _cache_problem(found: dict[str, CacheVerdict], asked: Mapping[str, bool | None]) -> str | None:
    known = {engine: verdict.state for engine, verdict in found.items() if verdict.state != CANNOT_TELL}
    if len(set(known.values())) > 1 and len(set(asked.values())) == 1:
        return say("set it alike on all engines (`serving: prefix_caching`)")
    for declared in (True, False):
        wrong = [engine for engine, state in known.items() if asked[engine] is declared and state != _word(declared)]
        if wrong:
            return say(
                "it is {state} at {engines}: start them as the scenario declares, or change the scenario",
                state=_word(not declared),
                engines=all_of(wrong),
            )
    return None


def _tokens_per_event(streams: list[StreamAnswer]) -> str:
    if not streams or streams[-1].output_tokens is None:
        return NOT_TOLD
    return f"{streams[-1].output_tokens / streams[-1].events:.1f}"


def _word(state: bool) -> str:
    return say("on") if state else say("off")


def _streams(sample: EngineSample) -> list[StreamAnswer]:
    """Its streams that carried text, shortest first."""
    return [stream for stream in sample.lengths.values() if stream is not None and stream.events]
