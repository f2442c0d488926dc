"""Checks of whether the engines do the same work: the same model, the same tokens in, the same length and text out."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Literal

from loadgen.endpoints.answers import Answer
from loadgen.endpoints.greedy import describe_divergences, divergence, judge_texts, logprob_gaps
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.message import joined, say
from loadgen.preflight.finding import NOT_TOLD, ON_PURPOSE, Needs, Samples, all_of, compared, finding
from loadgen.preflight.questions import GREEDY_TEXTS, GREEDY_TOKENS, TOLD
from loadgen.preflight.sample import EngineSample
from loadgen.runs.manifest import ParityFact, Verdict

Cause = Literal["equal", "BOS", "chat template", "tokenizer", "not told"]
"""What makes two engines count the tokens of the same texts differently."""
KSANA_CAUSES = say(
    "of a KsanaLLM, see that it was built with ENABLE_FLASHINFER (without it each layer lacks a norm, and token 0 is "
    "all that it says); that no file was left out of the build (with CUDA 13, whose CUB has no cub::Sum, the norms "
    "are); that config.json has torch_dtype and rope_theta at its top, where newer transformers write neither; and "
    "that its log has no error, as it answers on after one in its forward pass"
)
KV_BLOCK = 256
"""The largest block that is usual, in tokens."""
LOGPROB_TOLERANCE = 0.1
"""Mean difference, in nats, that another order of the same sums makes at 16 bits. Coarser weights make more."""
COUNT_VERDICTS: dict[Cause, Verdict] = {
    "equal": "equal",
    "BOS": "noted",
    "chat template": "noted",
    "not told": "unknown",
    "tokenizer": "blocking",
}


def check_answers(samples: Samples, _: Needs) -> ParityFact:
    """Whether the engines answer the questions at all."""
    values, mute = {}, []
    for sample in samples:
        given = sum(answer is not None for answer in (*sample.greedy, *sample.lengths.values()))
        asked = len(sample.greedy) + len(sample.lengths)
        values[sample.engine] = f"{given} of {asked}" + (f"; {sample.problem}" if sample.problem else "")
        if not any(sample.greedy) or not any(sample.lengths.values()):
            mute.append(sample.engine)
    whole = all(sample.problem is None for sample in samples)
    return finding(
        "answers",
        "blocking" if mute else "equal" if whole else "noted",
        say("questions that were answered, and the first refusal"),
        values,
        say("{engines} refuses requests: see its log", engines=all_of(mute) or say("an engine")),
    )


def check_model(samples: Samples, _: Needs) -> ParityFact:
    """The names under which the models are served."""
    values = {sample.engine: sample.model for sample in samples}
    return compared(
        "model", values, say("the name that each engine serves"), say("see that both names mean the same weights")
    )


def check_context(samples: Samples, needs: Needs) -> ParityFact:
    """Served context: the scenario has to fit."""
    lengths = {sample.engine: sample.context_length for sample in samples}
    values = {engine: NOT_TOLD if length is None else f"{length}" for engine, length in lengths.items()}
    short = [engine for engine, length in lengths.items() if length is not None and length < needs.context_tokens]
    detail: str = say("served context in tokens, as the engine says it")
    if needs.context_tokens:
        detail = joined("{a}; {b}", [detail, say("the scenario needs {tokens} at least", tokens=needs.context_tokens)])
    if short:
        advice = say("serve {engines} with a longer context, or race shorter prompts", engines=all_of(short))
        return finding("context-length", "blocking", detail, values, advice)
    return compared(
        "context-length", values, detail, say("a longer context may cost memory that the other engine uses")
    )


def check_kv_cache(samples: Samples, needs: Needs) -> ParityFact:
    """What the KV caches hold. They come in blocks, so one is as asked for if no block more or less would be nearer."""
    found = {sample.engine: sample.kv_cache_tokens for sample in samples}
    detail: str = say("tokens that the KV cache holds, as the engine says it")
    wanted = needs.asked_of(samples, "kv_cache_tokens")
    apart = len(set(wanted.values())) > 1
    asked = None if apart else next(iter(wanted.values()), None)
    if apart:
        detail = joined("{a}; {b}", [detail, ON_PURPOSE])
    elif asked is not None:
        detail = joined("{a}; {b}", [detail, say("the scenario asks for {tokens}", tokens=asked)])
    values = {engine: NOT_TOLD if tokens is None else f"{tokens}" for engine, tokens in found.items()}
    advice = say("a larger cache holds more requests at once: set it alike on all engines (`serving: kv_cache_tokens`)")
    if any(
        told is not None and (due := wanted[name]) is not None and abs(told - due) >= KV_BLOCK
        for name, told in found.items()
    ):
        return finding("kv-cache", "noted", detail, values, advice)
    known = [tokens for tokens in found.values() if tokens is not None]
    alike = len(known) == len(found) and max(known) - min(known) < KV_BLOCK
    return finding("kv-cache", "equal", detail, values) if alike else compared("kv-cache", values, detail, advice)


def check_prompt_tokens(samples: Samples, _: Needs) -> ParityFact:
    """The same texts counted by every engine, and what a difference comes from."""
    values = {
        sample.engine: joined(
            "{a}, {b}",
            [say(TOLD[kind], told=NOT_TOLD if n is None else n) for kind, n in sample.prompt_tokens.items()],
        )
        for sample in samples
    }
    first, *others = samples
    verdict: Verdict = "equal"
    details = []
    for other in others:
        found = explain_counts(first.prompt_tokens, other.prompt_tokens, first.engine, other.engine)
        details.append(found.words)
        verdict = _worse(verdict, COUNT_VERDICTS[found.cause])
    advice = (
        say("the models or their tokenizers differ: serve the same model on both")
        if verdict == "blocking"
        else say("measured prompts are made exact for each engine, so this does not lengthen them")
    )
    detail = say("tokens of some texts by the {api} API", api=first.text_api)
    if details:
        words = joined("{a}; {b}", details)
        detail = say("tokens of some texts by the {api} API: {words}", api=first.text_api, words=words)
    return finding("prompt-tokens", verdict, detail, values, advice)


@dataclasses.dataclass(frozen=True, slots=True)
class CountDifference:
    """What the differences of all counts look like, and what does that."""

    cause: Cause
    words: str


def explain_counts(
    a: Mapping[str, int | None], b: Mapping[str, int | None], name_a: str, name_b: str
) -> CountDifference:
    """Compare counts by text.

    One token more on every text is a BOS (or another single special token); several more, but always as many, are a
    chat template or system prompt, whose borders may join one token with the text; anything else is another tokenizer.
    """
    both = {text: (a[text], b[text]) for text in a if a[text] is not None and b.get(text) is not None}
    if len(both) < len(a):
        silent = all_of(name for name, counts in ((name_a, a), (name_b, b)) if None in counts.values())
        text = say("{engines} did not tell the prompt tokens of every text", engines=silent or name_b)
        return CountDifference("not told", text)
    more = {text: (theirs or 0) - (ours or 0) for text, (ours, theirs) in both.items()}
    sizes = set(more.values())
    if sizes == {0}:
        return CountDifference("equal", say("the same for {count} kinds of text", count=len(more)))
    offset = max(sizes, key=abs)
    least = min(abs(size) for size in sizes)
    if len(sizes) == 1 or (max(sizes) - min(sizes) == 1 and least > 1):
        longer = name_b if offset > 0 else name_a
        if least == 1:
            words = say("{engine} adds one token to every text: a BOS, most likely", engine=longer)
            return CountDifference("BOS", words)
        most = abs(offset)
        amount = most if least == most else say("{least} or {most}", least=least, most=most)
        words = say(
            "{engine} adds {count} tokens to every text, short or long: a chat template or system prompt",
            engine=longer,
            count=amount,
        )
        return CountDifference("chat template", words)
    told = joined(
        "{a}, {b}", [say(TOLD.get(text, f"{text} {{told}}"), told=f"{offset:+d}") for text, offset in more.items()]
    )
    text = say(
        "tokens of {engine} over those of {other}: {counts}: another tokenizer",
        engine=name_b,
        other=name_a,
        counts=told,
    )
    return CountDifference("tokenizer", text)


def check_measured_prompts(samples: Samples, _: Needs) -> ParityFact:
    """Whether the race's prompts are the very same."""
    values = {sample.engine: _prompts(sample.recipe) for sample in samples}
    alike = {(sample.recipe.mode, sample.recipe.pieces, sample.recipe.head_ids) for sample in samples}
    return finding(
        "measured-prompts",
        "equal" if len(alike) == 1 else "noted",
        say("whether the engines get the very same prompts in the race; their lengths are exact either way"),
        values,
        say("prompts are equally long, but of other words"),
    )


def check_output_length(samples: Samples, needs: Needs) -> ParityFact:
    """Outputs of the length asked for, past an end-of-sequence token."""
    values: dict[str, str] = {}
    verdict: Verdict = "equal"
    for sample in samples:
        told = {wanted: answer.output_tokens if answer else None for wanted, answer in sample.lengths.items()}
        values[sample.engine] = joined(
            "{a}, {b}",
            [say("{length}: {told}", length=n, told=NOT_TOLD if got is None else got) for n, got in told.items()],
        )
        for wanted, got in told.items():
            if got is None:
                verdict = _worse(verdict, "unknown")
            elif got != wanted:
                verdict = _worse(verdict, "noted" if needs.allow_short_output and got < wanted else "blocking")
    return finding(
        "output-length",
        verdict,
        say("output tokens asked for, and those generated"),
        values,
        say(
            "requests of another length are other work: see that the engine honours ignore_eos, min_tokens and "
            "max_tokens, and that its kind is the right one; `allow_short_output: true` in the scenario lets answers "
            "end early"
        ),
    )


def check_degenerate(samples: Samples, _: Needs) -> ParityFact:
    """Text that is no language: speed of an engine that computes nonsense says nothing."""
    values = {}
    broken = []
    for sample in samples:
        problem = judge_texts([answer for answer in sample.greedy if answer is not None])
        if problem:
            broken.append(sample.engine)
        values[sample.engine] = problem or say("nothing wrong")
    advice: str = say(
        "{engines} does not compute the model: look at its weights, dtype and log", engines=all_of(broken)
    )
    if any(sample.kind == "ksana" and sample.engine in broken for sample in samples):
        advice = joined("{a}; {b}", [advice, KSANA_CAUSES])
    return finding(
        "degenerate-text",
        "blocking" if broken else "equal",
        say("what is wrong with its greedy texts as a whole"),
        values,
        advice,
    )


def check_greedy(samples: Samples, _: Needs) -> ParityFact:
    """How far greedy texts agree with the first engine's."""
    first, *others = samples
    verdict: Verdict = "equal"
    details = []
    for other in others:
        found = [divergence(ours, theirs) for ours, theirs in _pairs(first, other)]
        if not found:
            verdict = _worse(verdict, "unknown")
            details.append(say("{engine}: no text to compare", engine=other.engine))
            continue
        details += describe_divergences(found, other.engine if len(others) > 1 else None)
        if 2 * sum(each.at_start for each in found) > len(found):
            verdict = _worse(verdict, "blocking")
        elif not all(each.same for each in found):
            verdict = _worse(verdict, "noted")
    advice = (
        say("the weights or the prompts differ: serve the same model on both, and see `prompt-tokens`")
        if verdict == "blocking"
        else say("quantisation, dtype or the order of sums; texts of the same weights part sooner or later")
    )
    shown = _where_texts_part(samples)
    values = {sample.engine: _text(sample.greedy[shown]) for sample in samples}
    after = repr(GREEDY_TEXTS[shown])
    details.append(say("shown: {count} tokens after {text}", count=GREEDY_TOKENS, text=after))
    return finding("greedy-text", verdict, joined("{a}; {b}", details), values, advice)


def check_logprobs(samples: Samples, _: Needs) -> ParityFact:
    """Log probabilities of the tokens that both engines chose."""
    first, *others = samples
    values = {sample.engine: say("given") if _gives_logprobs(sample) else say("not given") for sample in samples}
    verdict: Verdict = "equal"
    details = []
    for other in others:
        gaps = [gap for ours, theirs in _pairs(first, other) for gap in logprob_gaps(ours, theirs)]
        if not gaps:
            details.append(say("nothing to compare"))
            verdict = _worse(verdict, "unknown" if values[first.engine] == values[other.engine] else "noted")
            continue
        mean = statistics.fmean(gaps)
        details.append(
            say(
                "{mean} nats apart in the mean over {count} tokens, {most} at most",
                mean=f"{mean:.3f}",
                count=len(gaps),
                most=f"{max(gaps):.3f}",
            )
        )
        verdict = _worse(verdict, "equal" if mean <= LOGPROB_TOLERANCE else "noted")
    detail = joined("{a}; {b}", details) or say("log probabilities of greedy tokens")
    return finding(
        "logprobs", verdict, detail, values, say("weights stored or computed otherwise: quantisation, dtype")
    )


def _prompts(recipe: PromptRecipe) -> str:
    kind = say("token ids") if recipe.mode == "ids" else say("words")
    return say(
        "{kind}, {pieces} pieces, {tokens} tokens of overhead",
        kind=kind,
        pieces=len(recipe.pieces),
        tokens=recipe.overhead,
    )


def _worse(one: Verdict, other: Verdict) -> Verdict:
    order: tuple[Verdict, ...] = ("equal", "unknown", "noted", "blocking")
    return max(one, other, key=order.index)


def _pairs(a: EngineSample, b: EngineSample) -> list[tuple[Answer, Answer]]:
    return [(x, y) for x, y in zip(a.greedy, b.greedy, strict=True) if x is not None and y is not None]


def _gives_logprobs(sample: EngineSample) -> bool:
    return any(token.logprob is not None for answer in sample.greedy if answer for token in answer.tokens)


def _where_texts_part(samples: Samples) -> int:
    """Index of the first prompt whose texts are not all the same; 0 if all are."""
    columns = zip(*(sample.greedy for sample in samples), strict=True)
    return next((i for i, answers in enumerate(columns) if len(set(map(_text, answers))) > 1), 0)


def _text(answer: Answer | None) -> str:
    return repr(answer.text.strip()) if answer is not None else say("no answer")
