"""What was found, as lines of text and as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from loadgen.explain.findings import EngineFindings, Finding
from loadgen.message import Message, as_data, counted, say
from loadgen.presentation.language import ENGLISH, Language
from loadgen.presentation.text import cell_words

MOST_PLACES = 3
"""Cells of one finding that are told one by one where there are more."""


def nothing_words(engine: EngineFindings) -> Message:
    """Why there is no finding in an engine."""
    if not engine.blocks:
        return say("Not known: it has no complete block.")
    if not engine.read:
        return say("Nothing of what is known shows in its requests; its own figures were not read.")
    return say("Nothing of what is known shows.")


def evidence(finding: Finding) -> Iterator[Message]:
    """A line a cell, the first few; and how many more."""
    places = finding.places
    told = places if len(places) <= MOST_PLACES + 1 else places[:MOST_PLACES]
    for place in told:
        yield say(
            "{cell}: {what} (blocks: {shown} of {all})",
            cell=cell_words(place.cell),
            what=place.words,
            shown=len(place.blocks),
            all=place.of,
        )
    if len(told) < len(places):
        yield counted(len(places) - len(told), "and in {count} more cell", "and in {count} more cells")


def page_words(page: str, language: Language = ENGLISH) -> str:
    """A page in a language: those in Chinese have headings, and so places, of their own."""
    return page if language is ENGLISH else page.partition("#")[0].replace(".md", f".{language.code}.md")


def as_json(explained: Sequence[EngineFindings]) -> list[dict[str, Any]]:
    """All of it as plain data."""
    return [
        {
            **{"engine": one.engine, "blocks": one.blocks, "blocks_with_figures": one.read},
            "findings": [
                {
                    **{"mechanism": found.mechanism, "title": found.title, "page": found.page},
                    "cells": [{**dataclasses.asdict(place), "words": as_data(place.words)} for place in found.places],
                }
                for found in one.found
            ],
        }
        for one in explained
    ]
