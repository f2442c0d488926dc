"""Findings on a terminal: a heading an engine, under it each mechanism with its evidence and its page."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from loadgen.explain.findings import EngineFindings
from loadgen.explain.words import evidence, nothing_words, page_words
from loadgen.message import mark
from loadgen.presentation.language import Language


def show_findings(found: Sequence[EngineFindings], run: str, told: Language, console: Console) -> None:
    """Print them."""

    def line(text: str, indent: int, style: str = "") -> None:
        for part in Text(told.shown(text)).wrap(console, console.width - indent):
            console.print(Text(" " * indent + part.plain.rstrip(), style), highlight=False)

    line(told("Known mechanisms that show in {run}", run=run), 0)
    for one in found:
        console.print()
        line(one.engine, 0, "bold")
        if not one.found:
            line(nothing_words(one), 2)
        for finding in one.found:
            line(told(finding.title), 2, "bold")
            for words in evidence(finding):
                line(words, 4)
            line(told(mark("explained in {page}"), page=page_words(finding.page, told)), 4)
