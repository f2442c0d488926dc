"""Which of a machine's cards an engine gets for the sizes that are asked for, or why it cannot. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loadgen.engines.parallel import cards_asked, in_words, refusal, would_do
from loadgen.errors import UserError

PART = "MIG-"
"""How the UUID of a part of a card begins."""


@dataclass(frozen=True)
class Card:
    """One GPU."""

    index: int
    """As nvidia-smi counts them."""
    uuid: str
    name: str
    mig: bool = False
    """Whether it is cut into parts."""


@dataclass(frozen=True)
class CardsOf:
    """The cards of a seat, as the stack or a race has them."""

    engine: str
    """The seat's name."""
    kind: str
    gpus: tuple[str, ...]
    """By index or UUID, the first first."""
    named: bool
    """Whether a person, or a race, named exactly these."""
    variable: str
    """The variable that names them."""
    usable: tuple[str, ...] = ()
    """All that the user may use, in order."""


@dataclass(frozen=True)
class Chosen:
    """What a start takes."""

    gpus: tuple[str, ...]
    spare: tuple[str, ...] = ()
    """Equal ones that may stand in for any but the first."""
    note: str = ""
    """What a person should know of the choice."""


def card_of(name: str, cards: Sequence[Card]) -> Card | None:
    """The card of an index, a UUID or the beginning of one; None: there is none such, or it is a part of one."""
    exact = [card for card in cards if name in (str(card.index), card.uuid)]
    near = exact or [card for card in cards if name.startswith("GPU-") and card.uuid.startswith(name)]
    return near[0] if near else None


def same_card(one: str, other: str, cards: Sequence[Card]) -> bool:
    """Whether two names are of one card."""
    known = card_of(one, cards)
    return one == other or (known is not None and known == card_of(other, cards))


def choose_cards(seat: CardsOf, asked: Mapping[str, Any], cards: Sequence[Card], config: Mapping[str, Any]) -> Chosen:
    """The cards for the serving settings that are asked for. Raises UserError, with the sizes that would do.

    Exactly those that were named, as many of them as are asked for; else the seat's first and further ones of its kind.

    Args:
        seat: whose they are.
        asked: its serving settings.
        cards: this machine's; empty where the driver does not tell.
        config: the model's config.json; empty where it is not known.
    """
    count = cards_asked(seat.kind, asked)
    if count is None:
        return Chosen(seat.gpus)
    equal = seat.gpus if seat.named else (seat.gpus[:1] + _further(seat, cards))
    words, number = in_words(seat.kind, asked), f"{count} card{'s' if count > 1 else ''}"
    most = max(len(equal), 1)
    if problem := refusal(seat.kind, asked, config, most):
        raise UserError(f"{seat.engine}: {problem}.")
    if count > 1 and (parts := [name for name in equal[:count] if _is_part(name, cards)]):
        raise UserError(
            f"{seat.engine}: {words} takes {number}, and GPU {', '.join(parts)} is cut into parts (MIG), which cannot "
            f"be joined: name whole cards with {seat.variable}; on a part {would_do(seat.kind, asked, config, 1)}."
        )
    if len(equal) < count:
        have = f"{seat.variable} names {len(equal)} ({', '.join(equal)})" if seat.named else _there_are(equal, cards)
        raise UserError(
            f"{seat.engine}: {words} takes {number}, and {have}; {would_do(seat.kind, asked, config, most)}, or name "
            f"others with {seat.variable}."
        )
    gpus = equal[:count]
    kinds = sorted({card.name for name in gpus if (card := card_of(name, cards)) is not None})
    note = (
        f"{seat.engine} runs on cards of several kinds ({', '.join(kinds)}): the slowest decides" if kinds[1:] else ""
    )
    return Chosen(gpus, () if seat.named else equal[count:], note)


def _further(seat: CardsOf, cards: Sequence[Card]) -> tuple[str, ...]:
    """The usable cards of the first one's kind, those behind it first; none where that is not known."""
    first = card_of(seat.gpus[0], cards) if seat.gpus else None
    if first is None:
        return ()
    known = [(name, card_of(name, cards)) for name in seat.usable]
    alike = [(name, card) for name, card in known if card is not None and card.name == first.name and not card.mig]
    place = next((at for at, (_, card) in enumerate(alike) if card == first), -1)
    turned = alike[place + 1 :] + alike[: max(place, 0)]
    return tuple(name for name, card in turned if card != first)


def _is_part(name: str, cards: Sequence[Card]) -> bool:
    card = card_of(name, cards)
    return name.startswith(PART) or (card is not None and card.mig)


def _there_are(equal: Sequence[str], cards: Sequence[Card]) -> str:
    names = [card.name for card in cards]
    kinds = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "not known"
    return f"it can have {len(equal)} of one kind (of this machine's: {kinds})"
