"""What an endpoint answered when it was asked outside of any measurement, as plain data."""

from __future__ import annotations

import dataclasses
from typing import Literal

UsagePlace = Literal["event of its own", "finish event", "last content event", "every event", "nowhere"]


class Refused(Exception):
    """An endpoint did not answer; the text says how."""

    def __init__(self, message: str, *, by_status: bool) -> None:
        super().__init__(message)
        self.by_status = by_status
        """Whether a status of 4xx refused the request itself: another request may be answered."""


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """One token of a text, where the server tells tokens."""

    text: str
    logprob: float | None
    """Of the token itself, in nats; None: not told."""
    top: tuple[tuple[str, float], ...] = ()
    """The likeliest tokens in its place and their log probabilities, as far as the server lists them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """One whole answer. Counts are the server's own; None: not told."""

    text: str
    elapsed_ms: float = 0.0
    """From the call to the end of the answer."""
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    """Prompt tokens that came from a prefix cache."""
    tokens: tuple[Token, ...] = ()
    """The generated tokens, where log probabilities were asked for and given."""


@dataclasses.dataclass(frozen=True, slots=True)
class StreamAnswer:
    """One streamed answer."""

    text: str
    output_tokens: int | None
    events: int
    """Events that carry text."""
    usage: UsagePlace
    role_lead_ms: float | None
    """How long an empty role event came before the first text; None: there was no such event."""
    arrivals_ms: tuple[float, ...] = ()
    """When each event with text was read, ms of any clock."""
