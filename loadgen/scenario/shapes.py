"""Shapes of traffic beyond a plain load: a step in the arrival rate, conversations, prefixes, and a recorded trace."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from loadgen.message import mark, say
from loadgen.validation import Strict

Seconds = Annotated[float, Field(ge=0, le=86_400)]
Positive = Annotated[int, Field(ge=1)]
MOST = 10_000_000
"""Tokens of a request, or requests of a block, at most."""
NUMBER = r"[0-9]+(?:\.[0-9]+)?"


def plain(value: float) -> str:
    """A number as an id writes it: `20`, `2.5`; never with an exponent (`readable` sees to that)."""
    return repr(float(value)).removesuffix(".0")


def readable(value: float) -> bool:
    """Whether `plain` can write it without an exponent."""
    return re.fullmatch(NUMBER, plain(value)) is not None


class Step(Strict):
    """For a time the arrivals come `factor` times as fast: a burst. Seconds are from the start of the schedule."""

    at_s: Seconds
    for_s: Annotated[float, Field(gt=0, le=86_400)]
    factor: Annotated[float, Field(gt=0, le=1000)]

    @model_validator(mode="after")
    def _can_be_named(self) -> Self:
        for field in ("at_s", "for_s", "factor"):
            if not readable(getattr(self, field)):
                raise ValueError(f"`{field}` is too small a number: use 0.001 or more")
        return self

    @property
    def id(self) -> str:
        """As a cell's id has it, such as `b20f10x3`."""
        return f"b{plain(self.at_s)}f{plain(self.for_s)}x{plain(self.factor)}"

    @property
    def text(self) -> str:
        """In words."""
        return say(
            "x {factor} from {at} s for {seconds} s",
            factor=f"{self.factor:g}",
            at=f"{self.at_s:g}",
            seconds=f"{self.for_s:g}",
        )

    def arrivals_until_end(self, rate: float) -> float:
        """How many arrivals are expected until it ends, at `rate` outside of it."""
        return rate * (self.at_s + self.for_s * self.factor)

    def real_time(self, plain_s: float) -> float:
        """When an arrival happens that would happen at `plain_s` if there were no step; both s after the start.

        This is the inverse of the integrated rate (in units of the plain one), so a Poisson process at a constant
        rate becomes the Poisson process whose rate has the step: Cinlar's inversion, exact, nothing is thinned out.
        """
        if plain_s <= self.at_s:
            return plain_s
        inside = (plain_s - self.at_s) / self.factor
        if inside <= self.for_s:
            return self.at_s + inside
        return plain_s - self.for_s * (self.factor - 1)


class Conversation(Strict):
    """Each user holds conversations of `turns` requests; each prompt is all that was said before and a new message.

    What was said before stands in for by text of exactly the asked-for length, not by the engine's own words: those
    differ from engine to engine, and both must be sent the same tokens.
    """

    turns: Annotated[int, Field(ge=2, le=1000)]
    message_tokens: Positive = Field(description="tokens that the user adds in each turn after the first")
    think_s: Seconds = Field(default=0.0, description="mean pause between an answer and the next message")
    think: Literal["exponential", "fixed"] = "exponential"

    @model_validator(mode="after")
    def _can_be_named(self) -> Self:
        if not readable(self.think_s):
            raise ValueError("`think_s` is too small a number: use 0 or 0.001 and more")
        return self

    @property
    def id(self) -> str:
        """As a cell's id has it, such as `k8m64w2e`: 8 turns, 64 tokens a message, 2 s of exponential pauses."""
        return f"k{self.turns}m{self.message_tokens}w{plain(self.think_s)}{self.think[0]}"

    @property
    def text(self) -> str:
        """In words."""
        if not self.think_s:
            return say("conversations of {count} turns", count=self.turns)
        return say(
            "conversations of {count} turns, {seconds} s of thought", count=self.turns, seconds=f"{self.think_s:g}"
        )

    def prompt_tokens(self, first: int, output_tokens: int, turn: int) -> int:
        """Tokens of the prompt of turn `turn`, from 0, when the first turn's has `first`."""
        return first + turn * (output_tokens + self.message_tokens)

    def longest_prompt(self, first: int, output_tokens: int) -> int:
        """Tokens of the last turn's prompt."""
        return self.prompt_tokens(first, output_tokens, self.turns - 1)


class Prefixes(Strict):
    """Prompts open with one of several prefixes, each visited again and again in a stated order.

    What follows the prefix is each request's own; a prefix as long as the prompt makes the visits equal prompts. When
    all visits are done, it begins anew with prefixes that were never seen.
    """

    count: Annotated[int, Field(ge=1, le=100_000)]
    tokens: Annotated[int, Field(ge=1, le=MOST)] = Field(
        description="of each prefix; as many as the prompt has, or more: the whole prompt"
    )
    visits: Annotated[int, Field(ge=1, le=1000)] = Field(default=3, description="how often each prefix is sent")
    order: Literal["circle", "row", "drift"] = Field(
        default="circle",
        description="circle: all by turns, then all again; row: one after another, each as often as it is visited; "
        "drift: prefix i at steps i, i + `apart`, i + 2 `apart` ...",
    )
    apart: Annotated[int, Field(ge=1, le=100_000)] | None = Field(default=None, description="of `drift`, steps (4)")
    fill: Annotated[int, Field(ge=0, le=100_000)] = Field(
        default=0, description="prompts without a prefix that come first, so that the cache is full"
    )

    @model_validator(mode="after")
    def _apart_of_drift(self) -> Self:
        if self.apart is not None and self.order != "drift":
            raise ValueError("`apart` goes with `order: drift`")
        if self.count * self.visits > 1_000_000:
            raise ValueError("`count` times `visits` are more than a million: give fewer")
        return self

    @property
    def round(self) -> int:
        """Requests until it begins anew."""
        return self.fill + self.count * self.visits

    def which(self, number: int) -> int | None:
        """The prefix that request `number`, from 0, opens with; None for one without."""
        done, at = divmod(number, self.round)
        at -= self.fill
        if at < 0:
            return None
        if self.order == "drift":
            place = _drifting(self.count, self.visits, self.apart or APART)[at]
        else:
            place = at % self.count if self.order == "circle" else at // self.visits
        return done * self.count + place

    @property
    def id(self) -> str:
        """As a cell's id has it, such as `x29p1008v3c` or `x36p1008v3d4f110`: the last letter is that of the order."""
        apart = str(self.apart or APART) if self.order == "drift" else ""
        fill = f"f{self.fill}" if self.fill else ""
        return f"x{self.count}p{self.tokens}v{self.visits}{self.order[0]}{apart}{fill}"

    @property
    def text(self) -> str:
        """In words."""
        sentence = {
            "circle": mark("{count} prefixes of {tokens} tokens in a circle"),
            "row": mark("{count} prefixes of {tokens} tokens, each {visits} times in a row"),
            "drift": mark("{count} prefixes of {tokens} tokens that drift"),
        }[self.order]
        return say(sentence, count=self.count, tokens=self.tokens, visits=self.visits)


APART = 4
"""Steps between two visits of a prefix that drifts, where none are given."""


@functools.lru_cache(maxsize=8)
def _drifting(count: int, visits: int, apart: int) -> tuple[int, ...]:
    """Prefixes in the order of their visits: at each step the new one, then those before it that are due again."""
    last = count + apart * (visits - 1)
    due = ((step - apart * visit) for step in range(last) for visit in range(visits))
    return tuple(prefix for prefix in due if 0 <= prefix < count)


class TraceFacts(Strict):
    """What a scenario holds of a trace; the arrivals themselves are kept in the run folder."""

    file: str
    rebase: bool = Field(default=False, description="the first arrival is the start, whatever its `t`")
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    """Beginning of the SHA-256 of what is replayed."""
    requests: Annotated[int, Field(ge=2)]
    rate: Annotated[float, Field(gt=0, le=100_000)]
    """Mean arrivals a second."""
    prompt_tokens: Positive | None = None
    """Mean over the arrivals; None when they give no lengths. Likewise below."""
    output_tokens: Positive | None = None
    longest: Positive | None = None
    """Most tokens of a prompt and its output together."""


def parse_prefixes(text: str) -> Prefixes | None:
    """Read prefixes from their id; None when it is none. Raises ValueError when it cannot be one."""
    found = re.fullmatch(r"x([0-9]{1,6})p([0-9]{1,8})v([0-9]{1,4})(?:(c)|(r)|d([0-9]{1,6}))(?:f([0-9]{1,6}))?", text)
    if found is None:
        return None
    order: Literal["circle", "row", "drift"] = "circle" if found[4] else "row" if found[5] else "drift"
    apart = int(found[6]) if found[6] else None
    return Prefixes(
        count=int(found[1]),
        tokens=int(found[2]),
        visits=int(found[3]),
        order=order,
        apart=apart,
        fill=int(found[7] or 0),
    )


def parse_step(text: str) -> Step | None:
    """Read a step from its id; None when it is none. Raises ValueError when it cannot be one."""
    found = re.fullmatch(rf"b({NUMBER})f({NUMBER})x({NUMBER})", text)
    return Step(at_s=float(found[1]), for_s=float(found[2]), factor=float(found[3])) if found else None


def parse_conversation(text: str) -> Conversation | None:
    """Read a conversation from its id; None when it is none. Raises ValueError when it cannot be one."""
    found = re.fullmatch(rf"k([0-9]{{1,4}})m([0-9]{{1,9}})w({NUMBER})([ef])", text)
    if found is None:
        return None
    think: Literal["exponential", "fixed"] = "exponential" if found[4] == "e" else "fixed"
    return Conversation(turns=int(found[1]), message_tokens=int(found[2]), think_s=float(found[3]), think=think)
