"""Whether two engines that part, or that rate the same tokens, are further apart than rounding explains. Pure.

All log probabilities are natural ones, in nats. Two correct engines add the same numbers in another order, at 8 to 11
bits; so their log probabilities differ a little, and where two tokens are nearly as likely, greedy decoding may take
one here and the other there. What rounding cannot do is to overturn a token that is much likelier than its rival.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np

from loadgen.endpoints.answers import Answer, Token
from loadgen.message import say
from loadgen.quality.result import Logprobs
from loadgen.statistics.interval import t_quantile
from loadgen.statistics.metrics import Floats
from loadgen.statistics.proportion import mean_variance

CLEAR_NATS = 1.0
"""By so much the log odds of two tokens would have to change for answers to part there; rounding changes them by less.

A bfloat16 number between 16 and 32, as the largest logits are, is known to 0.06; so each engine's log odds are off by
0.13 at most where only the logits are rounded, and by a few times that where layers before them are too.
"""
MEAN_NATS = 0.1
"""Mean difference of log probabilities that no rounding at 16 bits makes; preflight's limit is the same."""
RENORMALISED = 1e-4
"""A list of few tokens whose probabilities add up to 1 but for this has been cut and scaled up."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """The next token after the same text, as two engines see it."""

    a: Token
    b: Token


def common_places(a: Sequence[Token], b: Sequence[Token]) -> list[Place]:
    """The places where both went on from the same text: all tokens in common, and the first where they part.

    White space in front does not count: engines decode the first token with or without.
    """
    places = []
    for ours, theirs in zip(a, b, strict=False):
        places.append(Place(ours, theirs))
        if ours.text != theirs.text and (len(places) > 1 or ours.text.lstrip() != theirs.text.lstrip()):
            break
    return places


def scored_places(answer: Answer, prompt: Sequence[Token]) -> list[Place]:
    """An answer's own tokens beside another engine's view of them: the end of `prompt`, which held that answer.

    Only as far as both cut the text into the same tokens.
    """
    tokens = spoken(answer)
    places: list[Place] = []
    for ours, theirs in zip(tokens, prompt[len(prompt) - len(tokens) :] if tokens else (), strict=False):
        if ours.text.lstrip() != theirs.text.lstrip():
            break
        places.append(Place(ours, theirs))
    return places


def spoken(answer: Answer) -> list[Token]:
    """The tokens that make up an answer's text, without an end-of-sequence token behind it."""
    tokens, length = [], 0
    for token in answer.tokens:
        if length >= len(answer.text):
            break
        tokens.append(token)
        length += len(token.text)
    return tokens


def parting_nats(place: Place) -> float | None:
    """By how much the log odds of two chosen tokens differ between the engines, at least; None where none is known.

    Each engine holds its own choice for the likelier; both leads together are what rounding would have to make up for.
    A rival that an engine does not list is no likelier than the last that it lists.
    """
    leads = [lead for lead in (_lead(place.a, place.b.text), _lead(place.b, place.a.text)) if lead is not None]
    return sum(leads) if leads else None


def _lead(chosen: Token, rival: str) -> float | None:
    if chosen.logprob is None or not chosen.top:
        return None
    known = dict(chosen.top)
    if rival not in known and len(known) < 2:
        return None
    return max(0.0, chosen.logprob - known.get(rival, min(known.values())))


def compare_logprobs(prompts: Iterable[Sequence[Place]], *, whole_texts: bool, names: tuple[str, str]) -> Logprobs:
    """Mean, p99 and divergence over all places whose log probabilities both engines tell.

    Args:
        prompts: of each prompt the places, `Place.a` of the first engine.
        whole_texts: whether all of a text was rated by both, and not only what both would have said.
        names: of the engines, for what has to be said of their lists.
    """
    of_prompts = [[place for place in places if _both_tell(place)] for places in prompts]
    told = [places for places in of_prompts if places]
    scaled = [renormalised(_all(told, side)) for side in ("a", "b")]
    gaps = [[_gap(place, scaled=any(scaled)) for place in places] for places in told]
    known = [[gap for gap in each if gap is not None] for each in gaps]
    known = [each for each in known if each]
    notes: list[str] = [
        say(
            "{engine} lists probabilities that it scaled up to 1 after a cut, so both are compared as such", engine=name
        )
        for name, is_scaled in zip(names, scaled, strict=True)
        if is_scaled
    ]
    if not known:
        notes.append(say("no token has a log probability on both engines"))
        return Logprobs(notes=notes)
    every = np.concatenate([np.array(each) for each in known])
    kl = [found for places in told for place in places if (found := divergence(place, scaled=any(scaled))) is not None]
    if not kl:
        notes.append(say("no divergence of the likeliest tokens: an engine lists none"))
    return Logprobs(
        tokens=int(every.size),
        prompts=len(known),
        mean=float(every.mean()),
        mean_ci95=_mean_interval([np.array(each) for each in known]),
        p99=float(np.quantile(every, 0.99)),
        kl=float(np.mean([each[0] for each in kl])) if kl else None,
        mass=float(np.mean([each[1] for each in kl])) if kl else None,
        whole_texts=whole_texts,
        notes=notes,
    )


def renormalised(tokens: Sequence[Token]) -> bool:
    """Whether an engine cuts its list and scales it up: wherever it was unsure it adds up to 1 all the same."""
    # A sure token's list adds up to 1 by itself; an engine that cuts shows it at unsure ones.
    unsure = [token for token in tokens if len(token.top) > 1 and max(value for _, value in token.top) < math.log(0.9)]
    sums = [sum(math.exp(value) for _, value in token.top) for token in unsure]
    return bool(sums) and all(abs(total - 1) < RENORMALISED for total in sums)


def divergence(place: Place, *, scaled: bool) -> tuple[float, float] | None:
    """Kullback-Leibler divergence of b from a over the tokens that both list, and the share of a that these hold.

    All other tokens count as one, so it is never more than the true one; where an engine has scaled its list up,
    both are scaled to the tokens that both list. None where they list fewer than two in common.
    """
    a, b = dict(place.a.top), dict(place.b.top)
    shared = [text for text in a if text in b]
    if len(shared) < 2:
        return None
    p, q = (np.exp([of[text] for text in shared]) for of in (a, b))
    mass = min(1.0, float(p.sum()))
    if scaled:
        p, q = p / p.sum(), q / q.sum()
    else:
        p, q = (np.append(each, max(1e-12, 1 - float(each.sum()))) for each in (p, q))
    return max(0.0, float(np.sum(p * np.log(p / q)))), mass


def _gap(place: Place, *, scaled: bool) -> float | None:
    """Absolute difference of what both engines give to the first one's token."""
    ours, theirs = place.a.logprob, _of(place.b, place.a.text)
    if ours is None or theirs is None:
        return None
    if not scaled:
        return abs(ours - theirs)
    a, b = dict(place.a.top), dict(place.b.top)
    shared = [text for text in a if text in b]
    if place.a.text not in shared or len(shared) < 2:
        return None
    totals = [math.log(sum(math.exp(of[text]) for text in shared)) for of in (a, b)]
    return abs(ours - totals[0] - theirs + totals[1])


def _both_tell(place: Place) -> bool:
    """Whether both engines give a log probability to the first one's token."""
    return place.a.logprob is not None and _of(place.b, place.a.text) is not None


def _of(token: Token, text: str) -> float | None:
    """What an engine gives to a token in this place, where it lists it."""
    if token.text.lstrip() == text.lstrip() and token.logprob is not None:
        return token.logprob
    return dict(token.top).get(text)


def _all(prompts: Sequence[Sequence[Place]], side: str) -> list[Token]:
    return [getattr(place, side) for places in prompts for place in places]


def _mean_interval(prompts: Sequence[Floats]) -> tuple[float, float] | None:
    """95% interval of the mean over all tokens, prompts being independent and the tokens of one prompt not."""
    count = len(prompts)
    if count < 2:
        return None
    sizes = np.array([each.size for each in prompts], dtype=np.float64)
    sums = np.array([each.sum() for each in prompts])
    mean = float(sums.sum() / sizes.sum())
    reach = t_quantile(0.975, count - 1) * math.sqrt(mean_variance(sums, sizes))
    return max(0.0, mean - reach), mean + reach
