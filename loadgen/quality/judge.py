"""From what the engines said to the result that is kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from loadgen.endpoints.greedy import judge_texts
from loadgen.message import Message, counted, joined, say
from loadgen.quality.agreement import accuracy, agreement, marks, meet, paired
from loadgen.quality.asking import Asked
from loadgen.quality.result import EngineQuality, Logprobs, PairQuality, QualityResult, Weights, gravest
from loadgen.quality.rounding import common_places, compare_logprobs, scored_places, spoken
from loadgen.quality.said import EngineAnswers
from loadgen.quality.verdict import ALL, LEAST_PROMPTS, of_engine, of_pair


def judge(asked: Asked, said: Sequence[EngineAnswers], facts: Mapping[str, object]) -> QualityResult:
    """Judge each engine by itself, and the first against each other one.

    Args:
        asked: the questions.
        said: what the engines answered, in the order of their seats.
        facts: what the result is to tell of the questions.
    """
    engines = [_engine(asked, each) for each in said]
    pairs = [_pair(asked, said[0], other, engines[0], one) for other, one in zip(said[1:], engines[1:], strict=True)]
    told = [(each.verdict, each.sentence) for each in engines] + [(pair.verdict, pair.sentence) for pair in pairs]
    verdict = gravest([each for each, _ in told])
    # Where all is well the pairs say it for their engines too.
    sentences = [text for each, text in told[len(engines) if verdict == "same" and pairs else 0 :] if each == verdict]
    return QualityResult(
        verdict=verdict,
        sentence=joined("{a} {b}", sentences) if said else say("No engine could be asked for answers."),
        notes=[*_notes(engines, pairs)],
        asked=dict(facts),
        engines=engines,
        pairs=pairs,
        answers=_answers(asked, said),
    )


def _engine(asked: Asked, said: EngineAnswers) -> EngineQuality:
    right, loaded = marks(asked.questions, said.first), marks(asked.questions, said.loaded)
    from_file = _of_file(asked, loaded)
    alone, under = (meet(asked.questions, said.first, other) for other in (said.again, said.loaded))
    tasks = paired(ALL, right, {place: ok for place, ok in loaded.items() if place not in from_file})
    texts = [said.first[place] for place in asked.prompts if place in said.first]
    broken = judge_texts(texts)
    verdict, sentence = of_engine(said.engine, broken, alone, under, tasks)
    return EngineQuality(
        engine=said.engine,
        model=said.model,
        verdict=verdict,
        sentence=sentence,
        weights=said.weights,
        degenerate=broken,
        accuracy=accuracy(asked.questions, {**right, **from_file}),
        alone=agreement(alone),
        under_load=agreement(under),
        tasks_under_load=tasks,
        missing=[*said.missing, *_refusals(said)],
        seconds=said.seconds,
    )


def _refusals(said: EngineAnswers) -> list[Message]:
    return [
        say("{requests} refused: {problem}", requests=counted(n, "{count} request", "{count} requests"), problem=words)
        for words, n in said.refusals.items()
    ]


def _pair(asked: Asked, a: EngineAnswers, b: EngineAnswers, one: EngineQuality, other: EngineQuality) -> PairQuality:
    meetings = meet(asked.questions, a.first, b.first)
    right = [
        {**marks(asked.questions, each.first), **_of_file(asked, marks(asked.questions, each.loaded))}
        for each in (a, b)
    ]
    kinds = dict.fromkeys(asked.questions[place].kind for place in right[0])
    of_kind = [
        paired(kind, *({p: ok for p, ok in each.items() if asked.questions[p].kind == kind} for each in right))
        for kind in kinds
    ]
    tasks = [found for found in (*of_kind, paired(ALL, *right)) if found is not None]
    logprobs = _logprobs(asked, a, b)
    agreed = agreement(meetings)
    verdict, sentence = of_pair((one, other), agreed, logprobs, tasks)
    return PairQuality(
        a=a.engine,
        b=b.engine,
        verdict=verdict,
        sentence=sentence,
        agreement=agreed,
        logprobs=logprobs,
        tasks=tasks,
        weights_differ=_weights_differ(a.weights, b.weights),
    )


def _of_file(asked: Asked, loaded: Mapping[int, bool]) -> dict[int, bool]:
    """Of the marks under load those of the file's questions, which are asked nowhere else."""
    return {place: ok for place, ok in loaded.items() if place in asked.from_file}


def _logprobs(asked: Asked, a: EngineAnswers, b: EngineAnswers) -> Logprobs:
    silent = [each.engine for each in (a, b) if not each.logprobs]
    if silent:
        names = joined("{some} and {last}", silent)
        return Logprobs(notes=[say("log probabilities are not given by {engines}", engines=names)])
    for rater, writer in ((b, a), (a, b)):
        told = rater.scored.get(writer.engine, {})
        places = [scored_places(writer.first[p], told[p]) for p in sorted(told) if p in writer.first]
        if sum(map(bool, places)) >= min(LEAST_PROMPTS, len(asked.prompts)):
            return compare_logprobs(places, whole_texts=True, names=(writer.engine, rater.engine))
    both = [p for p in asked.prompts if p in a.first and p in b.first]
    pairs = [common_places(spoken(a.first[p]), spoken(b.first[p])) for p in both]
    return compare_logprobs(pairs, whole_texts=False, names=(a.engine, b.engine))


def _weights_differ(a: Weights, b: Weights) -> bool:
    if a.bits is not None and b.bits is not None:
        return abs(a.bits - b.bits) > 0.25
    if a.quantised is None or b.quantised is None:
        return bool(a.quantised or b.quantised)
    return a.quantised != b.quantised or (a.quantised and a.words != b.words)


def _notes(engines: Sequence[EngineQuality], pairs: Sequence[PairQuality]) -> list[Message]:
    notes: list[Message] = []
    by_name = {each.engine: each for each in engines}
    for pair in pairs:
        if pair.weights_differ:
            a, b = by_name[pair.a].weights, by_name[pair.b].weights
            notes.append(
                say(
                    "The weights differ in precision ({a}: {of_a}; {b}: {of_b}), so other answers are to be expected.",
                    a=pair.a,
                    of_a=a.words,
                    b=pair.b,
                    of_b=b.words,
                )
            )
    told = {name for pair in pairs if pair.weights_differ for name in (pair.a, pair.b)}
    notes += [
        say("{engine} computes with quantised weights: {weights}.", engine=each.engine, weights=each.weights.words)
        for each in engines
        if each.weights.quantised and each.engine not in told
    ]
    shaky = [each for each in engines if each.alone is not None and each.alone.same.count < each.alone.same.total]
    notes += [
        say(
            "{engine} is not deterministic by itself: asked twice alone, {same} of {all} answers are the same.",
            engine=each.engine,
            same=each.alone.same.count,
            all=each.alone.same.total,
        )
        for each in shaky
        if each.alone is not None
    ]
    return notes


def _answers(asked: Asked, said: Sequence[EngineAnswers]) -> list[dict[str, object]]:
    """The questions over which anybody parted or was wrong, with all that was said."""
    found: list[dict[str, object]] = []
    for place, question in enumerate(asked.questions):
        texts = {
            each.engine: {
                name: answers[place].text
                for name, answers in (("alone", each.first), ("again", each.again), ("under_load", each.loaded))
                if place in answers
            }
            for each in said
        }
        every = [text for of_engine in texts.values() for text in of_engine.values()]
        if len(set(every)) > 1 or (question.rule and _any_wrong(asked, place, said)):
            found.append({"kind": question.kind, "prompt": question.prompt, "right": question.answer, "said": texts})
    return found


def _any_wrong(asked: Asked, place: int, said: Sequence[EngineAnswers]) -> bool:
    every = [answers[place] for each in said for answers in (each.first, each.loaded) if place in answers]
    return any(not ok for answer in every for ok in marks(asked.questions, {place: answer}).values())
