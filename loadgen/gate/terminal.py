"""A gate's decisions in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from loadgen.gate.decide import Decision, Outcome
from loadgen.gate.words import gravest_first, headline, sentence
from loadgen.presentation.language import ENGLISH, Language
from loadgen.presentation.text import printable

STYLES: dict[Outcome, str] = {"held": "green", "failed": "bold red", "undecided": "yellow"}


def show_decisions(console: Console, decisions: Sequence[Decision], told: Language = ENGLISH) -> None:
    """Print what became of each threshold, the gravest first."""
    for decision in gravest_first(decisions):
        console.print(Text(printable(told(sentence(decision))), style=STYLES[decision.outcome]), soft_wrap=True)
    console.print(Text(told(headline(decisions)), style="bold"), soft_wrap=True)
