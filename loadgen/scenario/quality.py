"""The `quality:` of a scenario: what the engines are asked to see whether they give the same answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from loadgen.validation import Strict

Positive = Annotated[int, Field(ge=1)]


class Quality(Strict):
    """How much is asked. Defaults take a GPU engine about a minute."""

    prompts: Annotated[int, Field(ge=5, le=5000)] = Field(default=50, description="prompts that are continued greedily")
    output_tokens: Positive = Field(default=64, description="most tokens of such an answer")
    tasks: Annotated[int, Field(ge=0, le=5000)] = Field(default=80, description="tasks whose answer is known")
    long_words: Annotated[int, Field(ge=50, le=100_000)] = Field(
        default=1200, description="words of the longest prompts; an engine that serves less leaves those out"
    )
    concurrency: Annotated[int, Field(ge=2, le=256)] = Field(
        default=16, description="requests at once when the same is asked under load"
    )
    file: str | None = Field(default=None, description="a .jsonl file of questions and answers, as GSM8K has them")
    file_questions: Positive = Field(default=100, description="most questions of the file, chosen by the seed")
    file_tokens: Positive = Field(default=256, description="most tokens of an answer to one of them")
    limit_s: float = Field(default=180.0, gt=0, le=86_400, description="most seconds an engine; the rest is left out")
