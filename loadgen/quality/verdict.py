"""The rules of the verdict. Pure; docs/quality.md gives the reasons.

Two correct engines round differently and so part somewhere in a long greedy text. Hence texts that part are evidence
only where rounding cannot make them part, and tasks with a right answer weigh most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadgen.message import Message, joined, mark, say
from loadgen.presentation.text import number
from loadgen.quality.agreement import Meeting
from loadgen.quality.result import Agreement, EngineQuality, Logprobs, Paired, Verdict
from loadgen.quality.rounding import MEAN_NATS
from loadgen.statistics.paired_proportions import more_often
from loadgen.statistics.proportion import Proportion

LEVEL = 0.01
"""Of each test. Two equal engines have five (texts and tasks of each under load, tasks of both), so that at most 5% of
such races find a difference by chance."""
LEAST_PROMPTS = 10
"""Fewer pairs of answers decide nothing."""
CLEAR_SHARE = 0.02
"""Engines differ where more answers than this (lower 99% bound) part although rounding cannot make them part."""
LOAD_SHARE = 0.25
"""Where log probabilities are not told: load changes answers where it makes so many more of them part (lower bound)."""
FAR_BELOW = 0.5
"""Where log probabilities are not told: engines are far apart if they agree in less than this share of the answers in
which each agrees with itself..."""
EARLY_CHARACTERS = 32
"""...and differ if, besides, the answers that part do so as early as this, in the median."""
ALL = "all"
"""The kind of all tasks together."""

CLEARLY = mark(
    "{engine} says other things under load: {loaded} of {all} answers part from its own where it was sure of its word, "
    "against {once} when asked twice alone."
)
CUT_SHORT = mark("{engine} cuts answers short under load: {loaded} of {all}, against {once} when asked twice alone.")
PARTING = mark(
    "{engine} says other things under load: {loaded} of {all} answers part from its own, against {once} when asked "
    "twice alone."
)
BUT_FOR_ROUNDING = mark(
    "Load changes the answers of {engine} by no more than rounding: {loaded} of {all} part from its own under load, "
    "{once} when asked twice alone."
)
NO_MORE = mark(
    "Load changes no more answers of {engine} than asking again does: {loaded} of {all} part from its own under load, "
    "{once} when asked twice alone."
)


def of_engine(
    engine: str, broken: str | None, alone: Mapping[int, Meeting], under: Mapping[int, Meeting], tasks: Paired | None
) -> tuple[Verdict, Message]:
    """Whether one engine talks at all, and whether load changes what it says more than asking again does.

    Args:
        engine: its name.
        broken: what is wrong with its texts as a whole, if anything is.
        alone: its answers, asked twice one at a time.
        under: the first of these against those under load.
        tasks: right answers alone and under load.
    """
    if broken:
        return "degenerate", say("{engine} does not compute the model: {problem}.", engine=engine, problem=broken)
    places = sorted(set(alone) & set(under))
    if len(places) < LEAST_PROMPTS:
        text = say(
            "Of {engine} too few prompts were answered alone and under load to compare them ({count}, {least} are "
            "needed): ask more, or give it more time (limit_s).",
            engine=engine,
            count=len(places),
            least=LEAST_PROMPTS,
        )
        return "unknown", text
    changed = _changed_texts(engine, [(alone[p], under[p]) for p in places]) or _worse_tasks(engine, tasks)
    if changed is not None:
        return "differ", changed
    parted = [(not alone[p].parted.same, not under[p].parted.same) for p in places]
    if any(map(any, parted)):
        sentence = BUT_FOR_ROUNDING if _more_under_load(parted) > 0 else NO_MORE
        return "same", say(sentence, engine=engine, **_counts(parted))
    return "same", say(
        "{engine} says the same alone and under load, in {all} of {all} answers.", engine=engine, all=len(places)
    )


def _changed_texts(engine: str, meetings: Sequence[tuple[Meeting, Meeting]]) -> Message | None:
    """What shows that load changes texts; None where nothing does."""
    parted = [(not once.parted.same, not loaded.parted.same) for once, loaded in meetings]
    judged = sum(loaded.nats is not None for _, loaded in meetings if not loaded.parted.same)
    rules = [
        (CLEARLY, [(once.clear, loaded.clear) for once, loaded in meetings], 0.0),
        (CUT_SHORT, [(once.cut_short, loaded.cut_short) for once, loaded in meetings], 0.0),
    ]
    if 2 * judged < sum(loaded for _, loaded in parted):
        rules.append((PARTING, parted, LOAD_SHARE))
    for sentence, found, limit in rules:
        if _more_under_load(found) > limit:
            return say(sentence, engine=engine, **_counts(found))
    return None


def _worse_tasks(engine: str, tasks: Paired | None) -> Message | None:
    if tasks is None or tasks.p >= LEVEL or tasks.difference > 0:
        return None
    first, second = tasks.right
    return say(
        "{engine} answers worse under load: {second} of {all} tasks right, and {first} alone.",
        engine=engine,
        first=first,
        second=second,
        all=tasks.total,
    )


def _counts(found: Sequence[tuple[bool, bool]]) -> dict[str, int]:
    return {"all": len(found), "once": sum(a for a, _ in found), "loaded": sum(b for _, b in found)}


def _more_under_load(found: Sequence[tuple[bool, bool]]) -> float:
    """For how large a share more something is true under load than alone, as a lower bound; 0 where it may be chance.

    Args:
        found: of each prompt, whether it is true of two answers alone, and of the first one and that under load.
    """
    only_loaded, only_once = sum(b and not a for a, b in found), sum(a and not b for a, b in found)
    return at_least(only_loaded - only_once, len(found)) if more_often(only_loaded, only_once) < LEVEL else 0.0


def at_least(count: int, total: int) -> float:
    """Lower 99% bound of a share (one-sided)."""
    return _bounds(count, total)[0] if count > 0 else 0.0


def _bounds(count: int, total: int) -> tuple[float, float]:
    return Proportion(count, total, total, 1).interval(1 - 2 * LEVEL)


def of_pair(
    engines: tuple[EngineQuality, EngineQuality], agreed: Agreement | None, logprobs: Logprobs, tasks: Sequence[Paired]
) -> tuple[Verdict, Message]:
    """Whether two engines give the same answers.

    Args:
        engines: each by itself.
        agreed: their greedy texts.
        logprobs: how far they rate the same tokens apart.
        tasks: their right answers; those of all tasks are of the kind `ALL`.
    """
    facts: dict[str, object] = {"a": engines[0].engine, "b": engines[1].engine}
    if any(each.verdict == "degenerate" for each in engines):
        return "unknown", say("The answers of {a} and {b} cannot be compared.", **facts)
    if agreed is None or agreed.same.total < LEAST_PROMPTS:
        return "unknown", say("Too few prompts were answered by both {a} and {b} to compare them.", **facts)
    facts |= {"same": agreed.same.count, "all": agreed.same.total}
    total = next((found for found in tasks if found.kind == ALL), None)
    apart = _apart(agreed, logprobs, total, facts)
    if apart is not None:
        return "differ", apart
    parted = agreed.same.total - agreed.same.count
    told = 2 * agreed.judged >= parted or (logprobs.mean is not None and logprobs.prompts >= LEAST_PROMPTS)
    own = min((each.alone.same.share for each in engines if each.alone is not None), default=1.0)
    if not told and agreed.same.share < FAR_BELOW * own:
        return _far_apart(agreed, own, facts)
    evidence = [say("{same} of {all} greedy texts are the same", **facts)]
    if parted and told:
        evidence.append(say("the others part where two words are nearly as likely"))
    if total is not None:
        evidence.append(_scored(total))
    if not parted:
        sentence = mark("{a} and {b} give the same answers: {evidence}.")
    elif told:
        sentence = mark("{a} and {b} give the same answers but for rounding: {evidence}.")
    else:
        sentence = mark("Nothing shows that {a} and {b} answer otherwise: {evidence}.")
    return "same", say(sentence, evidence=joined("{a}; {b}", evidence), **facts)


def _apart(agreed: Agreement, logprobs: Logprobs, tasks: Paired | None, facts: Mapping[str, object]) -> Message | None:
    """What shows that two engines differ whatever rounding does; None where nothing does."""
    if tasks is not None and tasks.p < LEVEL:
        first, second = tasks.right
        return say(
            "{a} and {b} do not answer alike: {a} got {first} of {tasks} tasks right, and {b} {second}.",
            **facts,
            tasks=tasks.total,
            first=first,
            second=second,
        )
    if at_least(agreed.clear, agreed.same.total) > CLEAR_SHARE:
        return say(
            "{a} and {b} do not answer alike: {clear} of {all} answers part where the engines were surer of their "
            "words than rounding explains.",
            clear=agreed.clear,
            **facts,
        )
    if logprobs.mean is not None and (logprobs.mean_ci95 or (logprobs.mean,))[0] > MEAN_NATS:
        return say(
            "{a} and {b} do not answer alike: their log probabilities of the same tokens are {nats} apart in the mean, "
            "and rounding makes {limit} at most.",
            nats=number(logprobs.mean),
            limit=f"{MEAN_NATS:g}",
            **facts,
        )
    return None


def _far_apart(agreed: Agreement, own: float, facts: Mapping[str, object]) -> tuple[Verdict, Message]:
    """Of two engines whose texts mostly part and whose log probabilities are not told."""
    characters = agreed.characters_before
    surely = _bounds(agreed.same.count, agreed.same.total)[1] < FAR_BELOW * own
    if surely and characters is not None and characters <= EARLY_CHARACTERS:
        return "differ", say(
            "{a} and {b} do not answer alike: {same} of {all} answers are the same, and the others part after "
            "{characters} characters in the median.",
            characters=f"{characters:g}",
            **facts,
        )
    return "unknown", say(
        "Whether {a} and {b} answer alike cannot be told: {same} of {all} answers are the same, and without log "
        "probabilities nobody can say whether rounding made the others part.",
        **facts,
    )


def _scored(total: Paired) -> Message:
    first, second = total.right
    if first == second:
        return say("both got {right} of {all} tasks right", right=first, all=total.total)
    return say("they got {first} and {second} of {all} tasks right", first=first, second=second, all=total.total)
