"""A result as rows of text: the same for the terminal and for reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from loadgen.message import joined, mark, say
from loadgen.presentation.text import DASH, number
from loadgen.quality.result import Agreement, EngineQuality, Paired, PairQuality, QualityResult, Share, Verdict
from loadgen.quality.verdict import ALL

VERDICTS: dict[Verdict, str] = {
    "same": mark("the same answers"),
    "differ": mark("answers differ"),
    "degenerate": mark("degenerate answers"),
    "unknown": mark("cannot be told"),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One figure: what it is, of whom, the figure, its interval."""

    what: str
    whose: str
    figure: str
    interval: str = ""
    detail: str = ""


def rows(result: QualityResult) -> list[Row]:
    """All figures of a result."""
    found = [row for pair in result.pairs for row in _pair(pair)]
    return found + [row for engine in result.engines for row in _engine(engine)]


def task_rows(pair: PairQuality) -> list[tuple[str, Paired]]:
    """Kinds of tasks and their marks, all together last."""
    return [(say("all tasks") if found.kind == ALL else say(found.kind), found) for found in pair.tasks]


def _pair(pair: PairQuality) -> Iterator[Row]:
    whose = say("{a} and {b}", a=pair.a, b=pair.b)
    if pair.agreement is not None:
        yield _agreement(say("equal greedy texts"), whose, pair.agreement)
        for kind, share in pair.agreement.by_kind.items():
            yield Row(say("of these: {kind}", kind=say(kind)), whose, _count(share), _interval(share.ci95))
    found = pair.logprobs
    if found.mean is None:
        yield Row(say("log probabilities"), whose, DASH, detail=joined("{a}; {b}", found.notes))
    else:
        tokens = say("{tokens} tokens of {prompts} texts", tokens=f"{found.tokens:,d}", prompts=found.prompts)
        reach = say("whole texts") if found.whole_texts else say("up to where texts part")
        yield Row(
            say("log probabilities apart, mean"),
            whose,
            say("{nats} nats", nats=number(found.mean)),
            _interval(found.mean_ci95, share=False) if found.mean_ci95 else "",
            joined("{a}; {b}", [tokens, reach, *found.notes]),
        )
        yield Row(say("log probabilities apart, p99"), whose, say("{nats} nats", nats=number(found.p99)))
        if found.kl is not None:
            yield Row(
                say("divergence (KL) of the likeliest tokens"),
                whose,
                say("{nats} nats", nats=number(found.kl)),
                detail=say("they hold {share} of the probability", share=f"{found.mass or 0:.1%}"),
            )
    for kind, paired in task_rows(pair):
        yield Row(
            say("right answers: {kind}", kind=kind),
            whose,
            say("{a} and {b} of {all}", a=paired.right[0], b=paired.right[1], all=paired.total),
            f"{_points(paired.ci95[0])} … {_points(paired.ci95[1])}",
            say("{b} less {a}: {points}; p {p}", a=pair.a, b=pair.b, points=_points(paired.difference), p=_p(paired.p)),
        )


def _engine(engine: EngineQuality) -> Iterator[Row]:
    yield Row(say("weights"), engine.engine, engine.weights.words)
    if engine.alone is not None:
        yield _agreement(say("equal texts, asked twice alone"), engine.engine, engine.alone)
    if engine.under_load is not None:
        yield _agreement(say("equal texts, under load and alone"), engine.engine, engine.under_load)
    tasks = engine.tasks_under_load
    if tasks is not None:
        yield Row(
            say("right answers: alone and under load"),
            engine.engine,
            say("{a} and {b} of {all}", a=tasks.right[0], b=tasks.right[1], all=tasks.total),
            f"{_points(tasks.ci95[0])} … {_points(tasks.ci95[1])}",
            say("p {p}", p=_p(tasks.p)),
        )
    for text in engine.missing:
        yield Row(say("not asked, or not answered"), engine.engine, DASH, detail=text)


def _agreement(what: str, whose: str, found: Agreement) -> Row:
    details = []
    if found.characters_before is not None:
        details.append(say("the others part after {count} characters", count=f"{found.characters_before:g}"))
    if found.tokens_before is not None:
        details.append(say("{count} tokens", count=f"{found.tokens_before:g}"))
    if found.judged:
        details.append(
            say("{clear} of {judged} where rounding does not explain it", clear=found.clear, judged=found.judged)
        )
    if found.cut_short:
        details.append(say("{count} cut short", count=found.cut_short))
    return Row(what, whose, _count(found.same), _interval(found.same.ci95), joined("{a}; {b}", details))


def _count(share: Share) -> str:
    return say("{count} of {all}", count=share.count, all=share.total)


def _interval(ends: tuple[float, float], *, share: bool = True) -> str:
    return f"{ends[0]:.1%} … {ends[1]:.1%}" if share else f"{number(ends[0])} … {number(ends[1])}"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}%"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.2g}"
