"""All checks over the samples of the engines of a race. Pure: the same samples give the same findings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from loadgen.errors import NOT_WHOLE, PREFLIGHT_REFUSES, UserError
from loadgen.message import Message, joined, mark, say
from loadgen.preflight import protocol_checks, work_checks
from loadgen.preflight.finding import NOT_ANSWERED, Needs, Samples
from loadgen.runs.manifest import ParityFact


def compare(samples: Samples, needs: Needs) -> list[ParityFact]:
    """Return one finding a check. With one engine, what can be said of it alone; `samples` must not be empty."""
    return [
        work_checks.check_answers(samples, needs),
        work_checks.check_model(samples, needs),
        work_checks.check_context(samples, needs),
        work_checks.check_kv_cache(samples, needs),
        work_checks.check_prompt_tokens(samples, needs),
        work_checks.check_measured_prompts(samples, needs),
        work_checks.check_output_length(samples, needs),
        work_checks.check_degenerate(samples, needs),
        work_checks.check_greedy(samples, needs),
        work_checks.check_logprobs(samples, needs),
        protocol_checks.check_prefix_caching(samples, needs),
        protocol_checks.check_usage(samples, needs),
        protocol_checks.check_tokens_per_event(samples, needs),
        protocol_checks.check_clumps(samples, needs),
        protocol_checks.check_role_event(samples, needs),
        *protocol_checks.parameter_checks(samples, needs),
        protocol_checks.check_unknown_fields(samples, needs),
    ]


def accept_findings(findings: Iterable[ParityFact], accepted: frozenset[str]) -> list[ParityFact]:
    """Mark the blocking findings that the user accepts."""
    return [
        fact.model_copy(update={"accepted": fact.verdict == "blocking" and fact.name in accepted}) for fact in findings
    ]


def summary_line(findings: Iterable[ParityFact]) -> Message:
    """All findings in one line."""
    by_verdict: dict[str, list[str]] = {"equal": [], "unknown": [], "noted": [], "accepted": [], "blocking": []}
    for fact in findings:
        by_verdict["accepted" if fact.accepted else fact.verdict or "noted"].append(fact.name)
    verdicts = [
        say(words, checks=joined("{a}, {b}", map(say, by_verdict[verdict])))
        for verdict, words in VERDICTS.items()
        if by_verdict[verdict]
    ]
    equal = len(by_verdict["equal"])
    if not verdicts:
        return say("Preflight: {count} checks equal", count=equal)
    return say("Preflight: {count} checks equal; {verdicts}", count=equal, verdicts=joined("{a}; {b}", verdicts))


VERDICTS = {
    "noted": mark("noted: {checks}"),
    "unknown": mark("could not be told: {checks}"),
    "accepted": mark("accepted: {checks}"),
    "blocking": mark("blocking: {checks}"),
}


def not_asked(fact: ParityFact, engines: Sequence[str]) -> ParityFact:
    """The finding as it stands where these engines could not be asked: nothing is equal that was not asked of all."""
    if not engines:
        return fact
    values = fact.values | dict.fromkeys(engines, NOT_ANSWERED)
    unknown: dict[str, object] = {"verdict": "unknown", "equal": False} if fact.verdict == "equal" else {}
    return fact.model_copy(update={"values": values, **unknown})


def refuse_missing(engines: Sequence[str]) -> None:
    """Raises UserError: these engines could not be asked, so there is nothing to race against."""
    raise UserError(
        f"{' and '.join(engines)} could not be asked (see above), so the race was not begun: it would compare nothing. "
        "See that each engine starts and answers, or leave out the one that does not.",
        exit_code=NOT_WHOLE,
    )


def refuse_blocking(findings: Iterable[ParityFact]) -> None:
    """Raise UserError (exit code 5) if a finding blocks the race and was not accepted."""
    stopping = [fact for fact in findings if fact.verdict == "blocking" and not fact.accepted]
    if not stopping:
        return
    lines = ["Preflight: these engines cannot be compared as they are."]
    for fact in stopping:
        told = "; ".join(f"{engine}: {value}" for engine, value in fact.values.items())
        lines += [f"  {fact.name}: {fact.detail}.", f"    {told}", f"    What to do: {fact.advice}."]
    names = ",".join(fact.name for fact in stopping)
    lines.append(f"To race them all the same, and have it said in the report: --accept {names}")
    raise UserError("\n".join(lines), exit_code=PREFLIGHT_REFUSES)
