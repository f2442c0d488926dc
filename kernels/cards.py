"""What the cards can do at most, by their makers' data sheets."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Card:
    """The limits of one card."""

    name: str
    """A part of the name that the driver gives it."""
    tflops: float
    """Of 16-bit tensor cores without sparsity."""
    tbytes_a_s: float
    """To device memory."""


CARDS = (Card("H200", 989.4, 4.8), Card("H100 PCIe", 756.0, 2.0), Card("H100", 989.4, 3.35))
"""NVIDIA's data sheets of the H100 and the H200; the H100 without more words is the SXM5."""


def card_of(name: str) -> Card | None:
    """The card that a driver's name speaks of; None for one that is not known here."""
    return next((card for card in CARDS if card.name in name), None)
