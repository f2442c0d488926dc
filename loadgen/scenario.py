"""Scenarios: what is measured, and the blocks that it expands into."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from loadgen.gate.threshold import parse_threshold
from loadgen.serving import Serving
from loadgen.strict import Strict

Positive = Annotated[int, Field(ge=1)]
OPEN_LOOP_WARMUP = 10


class Load(Strict):
    """How requests are offered: `concurrency` for a closed loop, or `rate` for an open one.

    Closed loop: each user sends its next request when its last one ended. Open loop: requests are sent at `rate` a
    second on an absolute schedule, whatever became of the earlier ones.
    """

    concurrency: list[Positive] = Field(default_factory=list)
    rate: list[Annotated[float, Field(gt=0, le=100_000)]] = Field(default_factory=list)
    arrival: Literal["poisson", "constant"] = "poisson"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.concurrency) == bool(self.rate):
            raise ValueError("give either `concurrency` (closed loop) or `rate` (open loop)")
        return self


class Timeouts(Strict):
    """Limits in seconds. A request that passes one ends with an error and keeps what was timed."""

    connect_s: float = Field(default=10.0, gt=0)
    stall_s: float = Field(default=120.0, gt=0, description="longest silence, the wait for the first event included")
    total_s: float = Field(default=600.0, gt=0)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One point of a scenario's matrix. Cells sort by prompt, output and load."""

    prompt_tokens: int
    output_tokens: int
    concurrency: int
    """Users of a closed loop; 0 in an open one."""
    rate: float = 0.0
    """Requests a second of an open loop; 0 in a closed one."""

    @property
    def open_loop(self) -> bool:
        """Whether requests come by a schedule."""
        return self.rate > 0

    @property
    def load(self) -> float:
        """Users, or requests a second."""
        return self.rate if self.open_loop else self.concurrency

    @property
    def load_text(self) -> str:
        """The load in words, such as `4 users` or `2.5 req/s`."""
        if self.open_loop:
            return f"{self.rate:g} req/s"
        return f"{self.concurrency} user{'' if self.concurrency == 1 else 's'}"

    @property
    def id(self) -> str:
        """Stable name, such as `p0512-o0128-c004` or `p0512-o0128-r2.5`.

        Larger numbers are written whole, so sort cells, not ids.
        """
        load = f"r{repr(self.rate).removesuffix('.0')}" if self.open_loop else f"c{self.concurrency:03d}"
        return f"p{self.prompt_tokens:04d}-o{self.output_tokens:04d}-{load}"

    @classmethod
    def parse(cls, cell_id: str) -> Cell:
        """Read a cell back from its id. Raises ValueError when it is not one."""
        found = re.fullmatch(r"p([0-9]{4,9})-o([0-9]{4,9})-(?:c([0-9]{3,9})|r([0-9.e+-]{1,25}))", cell_id)
        if found is None:
            raise ValueError(f"{cell_id!r} is not a cell id, such as p0512-o0128-c004")
        prompt, output, users, rate = found.groups()
        cell = cls(int(prompt), int(output), int(users or 0), float(rate or 0))
        if cell.id != cell_id:
            raise ValueError(f"{cell_id!r} is not a cell id, such as p0512-o0128-r2.5")
        return cell


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One engine's one repetition of one cell."""

    engine: str
    cell: Cell
    repeat: int

    @property
    def id(self) -> str:
        """Stable name within a run, such as `vllm.p0512-o0128-c004.r1`."""
        return f"{self.engine}.{self.cell.id}.r{self.repeat}"


def _threshold(text: str) -> str:
    parse_threshold(text)
    return text


class Scenario(Strict):
    """A whole scenario, as its file has it (`scenario_file`)."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    question: str = Field(min_length=1, description="which question this scenario answers")
    engines: list[str] = Field(default_factory=list, description="seats A and B of the stack; none: all it has")
    model: str | None = None
    prompt_tokens: list[Positive] = Field(min_length=1)
    output_tokens: list[Positive] = Field(min_length=1)
    load: Load
    requests: Positive = Field(description="measured requests of each block")
    warmup_requests: int | None = Field(
        default=None,
        ge=0,
        description="requests of each user before the window opens (default 1); in an open loop, of all (default 10)",
    )
    shared_prefix_tokens: int = Field(default=0, ge=0)
    repeats: Positive = 1
    between_blocks: Literal["restart", "keep"] = Field(
        default="restart",
        description="restart: one engine at a time, started afresh for each of its turns; keep: all stay up, where "
        "they fit, and take turns cell by cell",
    )
    seed: int = Field(default=1, ge=0)
    timeouts: Timeouts = Timeouts()
    serving: Serving | None = Field(default=None, description="how the engines are to be set up")
    fail_if: list[Annotated[str, AfterValidator(_threshold)]] = Field(
        default_factory=list, description="thresholds that decide the exit code, such as `ttft.p95 > +5%`"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        for field in ("engines", "prompt_tokens", "output_tokens"):
            values = getattr(self, field)
            if len(set(values)) != len(values):
                raise ValueError(f"`{field}` lists a value twice")
        for field in ("concurrency", "rate"):
            values = getattr(self.load, field)
            if len(set(values)) != len(values):
                raise ValueError(f"`load.{field}` lists a value twice")
        if self.shared_prefix_tokens >= min(self.prompt_tokens):
            raise ValueError("`shared_prefix_tokens` must be less than the shortest of `prompt_tokens`")
        longest = max(self.prompt_tokens) + max(self.output_tokens)
        length = self.serving.max_model_length if self.serving else None
        if length is not None and length < longest:
            raise ValueError(
                f"`serving.max_model_length` ({length}) must hold the longest prompt and its output: {longest} tokens"
            )
        return self

    def cells(self) -> list[Cell]:
        """Return the matrix, shortest prompts and lowest load first."""
        loads = [(users, 0.0) for users in self.load.concurrency] or [(0, rate) for rate in self.load.rate]
        return [
            Cell(prompt, output, users, rate)
            for prompt in self.prompt_tokens
            for output in self.output_tokens
            for users, rate in loads
        ]

    @property
    def warmup(self) -> int:
        """Warm-up requests: of each user in a closed loop, in all in an open one."""
        if self.warmup_requests is not None:
            return self.warmup_requests
        return OPEN_LOOP_WARMUP if self.load.rate else 1

    def blocks(self, engines: Sequence[str], repeats: Iterable[int] | None = None) -> Iterator[Block]:
        """Yield the blocks in the order they run: A B, B A, then the mirror B A, A B, and so on.

        So drift of the machine falls on both: over two repeats a linear one cancels, over four a quadratic one too
        (the Thue-Morse sequence). Engines that are kept up change from block to block, others from turn to turn.

        Args:
            engines: the seats, in their order.
            repeats: which repeats, counted from 1; default: all of the scenario's.
        """
        for repeat in repeats if repeats is not None else range(1, self.repeats + 1):
            order = list(engines) if (repeat - 1).bit_count() % 2 == 0 else list(reversed(engines))
            pairs = ((engine, cell) for engine in order for cell in self.cells())
            if self.between_blocks == "keep":
                pairs = ((engine, cell) for cell in self.cells() for engine in order)
            for engine, cell in pairs:
                yield Block(engine, cell, repeat)
