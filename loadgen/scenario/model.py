"""Scenarios: what is measured, and the blocks that it expands into."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from loadgen.engines import parallel
from loadgen.engines.needs import Placed
from loadgen.metrics.slo import Slo
from loadgen.scenario.capacity import FindCapacity
from loadgen.scenario.cell import Cell
from loadgen.scenario.cost import Cost
from loadgen.scenario.experiment import Experiment
from loadgen.scenario.load import ONE_KIND, Load, scripted
from loadgen.scenario.quality import Quality
from loadgen.scenario.serving import Serving, Variant, settings_apart
from loadgen.scenario.shapes import MOST, Conversation, Positive, Prefixes
from loadgen.scenario.threshold import OF_BATCHES, parse_threshold
from loadgen.scenario.together import together_name
from loadgen.stream.timeouts import Timeouts
from loadgen.validation import Name, Strict

__all__ = ["OPEN_LOOP_WARMUP", "Block", "Cell", "Load", "Scenario"]

OPEN_LOOP_WARMUP = 10
MAX_BLOCKS = 5000
"""Of each engine: at ten seconds a block, more than half a day."""
Tokens = Annotated[int, Field(ge=1, le=MOST)]


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """One engine's one repetition of one cell."""

    engine: str
    cell: Cell
    repeat: int
    requests: int | None = None
    """Measured requests, where they are not the scenario's."""
    together: bool = False
    """Whether it runs at the same instant as the other engines' blocks of this cell and repeat."""
    called: str = ""
    """The engine's name in records and figures, where it is another."""

    @property
    def name(self) -> str:
        """What the engine is called in records and figures."""
        return self.called or self.engine

    @property
    def id(self) -> str:
        """Stable name within a run, such as `vllm.p0512-o0128-c004.r1`."""
        return f"{self.name}.{self.cell.id}.r{self.repeat}"


def _threshold(text: str) -> str:
    parse_threshold(text)
    return text


def _name(text: str) -> str:
    if re.fullmatch("[a-z0-9][a-z0-9-]{0,63}", text) is None:
        raise ValueError(f"must be small letters, digits and hyphens, 64 at most, no hyphen first; not {text[:80]!r}")
    return text


class Scenario(Strict):
    """A whole scenario, as its file has it (`scenario_file`)."""

    name: Annotated[str, AfterValidator(_name)]
    question: str = Field(min_length=1, description="which question this scenario answers")
    engines: list[Name] = Field(
        default_factory=list,
        description="seats A and B of the stack; none: all it has; mappings with `name`, `engine` and `serving` are "
        "settings of one of its engines; or endpoints, mappings with `name`, `url` and what they need",
    )
    variants: dict[Name, Variant] = Field(
        default_factory=dict, description="of those in `engines` that have an `engine`"
    )
    endpoints: dict[str, Placed] = Field(default_factory=dict, description="of those in `engines` that have a `url`")
    model: str | None = None
    prompt_tokens: list[Tokens] = Field(min_length=1)
    output_tokens: list[Tokens] = Field(min_length=1)
    load: Load = Load()
    requests: Annotated[int, Field(ge=1, le=MOST)] = Field(
        description="measured requests of each block; of a batch load the next whole batch"
    )
    warmup_requests: int | None = Field(
        default=None,
        ge=0,
        description="requests of each user before the window opens (default 1, or a conversation's turns); in an open "
        "loop, of all (default 10, of a script 0); of a batch load, whole batches (default 1)",
    )
    shared_prefix_tokens: int = Field(default=0, ge=0)
    shared_prefix: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        default_factory=list, description="shares of each prompt that all prompts have in common, each a cell"
    )
    conversation: Conversation | None = Field(default=None, description="users chat, and the history grows")
    prefixes: Prefixes | None = Field(default=None, description="prompts open with prefixes that come again")
    slo: Slo | None = Field(default=None, description="what goodput is counted by")
    margin: float = Field(default=0.02, ge=0, lt=1, description="differences up to this share do not matter")
    max_error_share: float = Field(default=0.01, ge=0, le=1, description="a block with more failed requests is invalid")
    allow_short_output: bool = Field(
        default=False,
        description="an answer shorter than asked for is no error; what depends on length is then not compared between "
        "engines whose answers differ in it",
    )
    reasoning_end: str | None = Field(
        default=None,
        min_length=1,
        description="what ends the reasoning inside answers' text, such as `</think>`: the time to the first answer "
        "token then counts from what follows it; TTFT does not change",
    )
    find_capacity: FindCapacity | None = Field(
        default=None, description="in place of a load: search the highest at which the SLO holds"
    )
    max_context: Positive | None = Field(default=None, description="cells that need more tokens are left out")
    repeats: Annotated[int, Field(ge=1, le=1000)] = 1
    between_blocks: Literal["restart", "keep"] = Field(
        default="restart",
        description="restart: one engine at a time, started afresh for each of its turns; keep: all stay up, where "
        "they fit, and take turns cell by cell",
    )
    starts: Positive = Field(
        default=1,
        description="with `between_blocks: keep`: the repeats are divided into so many groups, and all engines are "
        "started afresh between these",
    )
    placement: Literal["turns", "together", "both"] = Field(
        default="turns",
        description="together: each engine on cards and cores of its own, all at the same instant, and cards change "
        "hands between `starts`; both: so and in turns, which tells how much the engines disturb each other",
    )
    seed: int = Field(default=1, ge=0)
    timeouts: Timeouts = Timeouts()
    quality: Quality | None = Field(default=None, description="whether the engines' answers are compared, and how")
    serving: Serving | None = Field(default=None, description="how the engines are to be set up")
    experiment: Experiment | None = Field(default=None, description="what it is to show, and which figure decides that")
    reset_prefix_caches: bool = Field(
        default=False,
        description="have each engine empty its prefix cache before each block, where it has a route for that",
    )
    cost: Cost | None = Field(default=None, description="what a GPU hour costs: the report then shows money")
    fail_if: list[Annotated[str, AfterValidator(_threshold)]] = Field(
        default_factory=list, description="thresholds that decide the exit code, such as `ttft.p95 > +5%`"
    )

    @model_validator(mode="before")
    @classmethod
    def _placed(cls, given: Any) -> Any:
        """Endpoints and variants stand in `engines` and are kept apart, with the others' names."""
        engines = given.get("engines") if isinstance(given, dict) else None
        if not isinstance(engines, list) or not any(isinstance(engine, dict) for engine in engines):
            return given
        names, placed, variants = [], dict(given.get("endpoints") or {}), dict(given.get("variants") or {})
        for engine in engines:
            if isinstance(engine, dict):
                name = engine.get("name")
                named = isinstance(name, str) and name.replace("-", "").replace("_", "").replace(".", "").isalnum()
                if not named or not {"url", "engine"} & set(engine):
                    raise ValueError(
                        "`engines`: an entry of several keys needs a `name`, and a `url` (an endpoint) or an `engine` "
                        "(one of the stack's, with `serving` of its own)"
                    )
                kept = variants if "engine" in engine else placed
                kept[name] = {key: value for key, value in engine.items() if key != "name"}
                names.append(name)
            else:
                names.append(engine)
        return {**given, "engines": names, "endpoints": placed, "variants": variants}

    @model_validator(mode="before")
    @classmethod
    def _kept_up(cls, given: Any) -> Any:
        """Engines that run together stay up, whatever `between_blocks` says."""
        if isinstance(given, dict) and given.get("placement") in ("together", "both"):
            return {**given, "between_blocks": "keep"}
        return given

    @model_validator(mode="before")
    @classmethod
    def _lengths_of_script(cls, given: Any) -> Any:
        """A script gives the lengths and the number of requests itself."""
        load = given.get("load") if isinstance(given, dict) else None
        if not isinstance(load, dict) or not load.get("script"):
            return given
        known = {"prompt_tokens": [1], "output_tokens": [1], "requests": 1}
        if (trace := scripted(load["script"])) is not None:
            facts, warmup = trace.facts(""), given.get("warmup_requests") or 0
            known = {"prompt_tokens": [facts.prompt_tokens], "output_tokens": [facts.output_tokens]}
            known["requests"] = max(1, facts.requests - warmup) if isinstance(warmup, int) else 1
        return {**known, **given}

    @model_validator(mode="after")
    def _check(self) -> Self:
        loads = max(1, len(self.load.concurrency) + len(self.load.batch) + len(self.load.rate))
        cells = len(self.prompt_tokens) * len(self.output_tokens) * max(1, len(self.shared_prefix)) * loads
        if cells * self.repeats > MAX_BLOCKS:
            raise ValueError(
                f"`prompt_tokens`: {cells:,} cells by {self.repeats:,} repeats are {cells * self.repeats:,} blocks of "
                f"each engine, and a race has {MAX_BLOCKS:,} at most: list fewer lengths or loads, or repeat them less"
            )
        for field in ("engines", "prompt_tokens", "output_tokens", "shared_prefix"):
            values = getattr(self, field)
            if len(set(values)) != len(values):
                raise ValueError(f"`{field}` lists a value twice")
        for field in ("concurrency", "batch", "rate"):
            values = getattr(self.load, field)
            if len(set(values)) != len(values):
                raise ValueError(f"`load.{field}` lists a value twice")
        for name, variant in self.variants.items():
            if name not in self.engines:
                raise ValueError(f"`variants`: {name} is not among `engines`")
            try:
                variant.over(self.serving)
            except ValueError as error:
                raise ValueError(f"`engines`: {name}: {error}") from None
        if self.load.kinds == 0 and self.find_capacity is None:
            raise ValueError(f"`load`: {ONE_KIND}")
        self._check_prefix()
        self._check_shapes()
        self._check_capacity()
        self._check_starts()
        self._check_thresholds()
        if not self.cells():
            least = min(map(self.tokens_needed, self.matrix()))
            key, length = "max_context", self.max_context
            if served := [block.max_model_length for block in self._blocks() if block.max_model_length is not None]:
                key, length = "serving.max_model_length", min(served)
            raise ValueError(
                f"`{key}` ({length}) must hold the shortest prompt and its output at least: {least} tokens"
            )
        return self

    def _check_prefix(self) -> None:
        if self.shared_prefix_tokens and self.shared_prefix:
            raise ValueError("`shared_prefix` and `shared_prefix_tokens` are two ways to say one thing: give one")
        if self.shared_prefix_tokens >= min(self.prompt_tokens):
            raise ValueError("`shared_prefix_tokens` must be less than the shortest of `prompt_tokens`")
        if any(abs(share * 100 - round(share * 100)) > 1e-9 for share in self.shared_prefix):
            raise ValueError("`shared_prefix` is in whole per cents, such as 0.5 or 0.95")

    def _check_shapes(self) -> None:
        step, trace = self.load.step, self.load.trace
        if self.prefixes is not None and (
            self.conversation or trace or self.shared_prefix or self.shared_prefix_tokens or self.find_capacity
        ):
            raise ValueError(
                "`prefixes` goes with `concurrency`, `batch` or `rate`, and with no `conversation`, `trace`, `script`, "
                "`find_capacity` or shared prefix"
            )
        for rate in self.load.rate:
            least = step.arrivals_until_end(rate) - self.warmup if step is not None else 0
            if self.requests < least:
                raise ValueError(
                    f"`requests` ({self.requests}) are over before the step of `load.step` is: at {rate:g} req/s it "
                    f"takes {least:.0f} or more"
                )
        if self.conversation is not None and not self.load.concurrency:
            raise ValueError("`conversation` needs users: give `load.concurrency`")
        if trace is None:
            return
        if len(self.prompt_tokens) > 1 or len(self.output_tokens) > 1 or self.shared_prefix:
            kind = "script" if self.load.script else "trace"
            raise ValueError(
                f"`load.{kind}` is one cell: give one prompt length, one output length, no `shared_prefix`"
            )
        if self.requests + self.warmup > trace.requests:
            raise ValueError(
                f"`requests` ({self.requests}) and warm-up ({self.warmup}) are more than the {trace.requests} arrivals "
                "of the trace"
            )

    def _check_capacity(self) -> None:
        search = self.find_capacity
        if search is None:
            return
        if self.slo is None:
            raise ValueError("`find_capacity` needs an `slo` that is to hold")
        if self.placement != "turns":
            raise ValueError(f"`find_capacity` searches engine by engine: leave out `placement: {self.placement}`")
        if self.load.kinds:
            raise ValueError("`find_capacity` chooses the load itself: leave all but `arrival` out of `load`")
        if self.repeats > 1:
            raise ValueError(
                "`find_capacity` searches each engine once: leave out `repeats`, and run the scenario again to see by "
                "how much two searches differ"
            )
        if self.conversation is not None:
            raise ValueError(
                "`find_capacity` sends single requests: for a `conversation`, list users in `load.concurrency`, and "
                "read where the SLO holds from the cells' goodput"
            )
        if search.of == "rate" and self.slo.ttft_ms is None and self.slo.e2e_ms is None:
            raise ValueError(
                "`slo` must limit `ttft_ms` or `e2e_ms`: an engine beyond its capacity lets requests wait, and TPOT "
                "does not show that"
            )

    def _check_starts(self) -> None:
        if self.starts > 1 and self.between_blocks == "restart":
            raise ValueError(
                "`starts` goes with `between_blocks: keep`: with `restart` every turn is a start of its own"
            )
        if self.starts > self.repeats:
            raise ValueError(f"`starts` ({self.starts}) are more than `repeats` ({self.repeats})")

    def _check_thresholds(self) -> None:
        metrics = [parse_threshold(text).metric for text in self.fail_if]
        of_batches = next((metric for metric in metrics if metric in OF_BATCHES), None)
        if of_batches is not None and not self.load.batch:
            raise ValueError(f"`fail_if`: {of_batches} is of a batch load: give `load.batch`")

    def name_together(self, engine: str) -> str:
        """What an engine is called where it runs together with others: its own name, unless it takes turns too."""
        return together_name(engine) if self.placement == "both" else engine

    def start_of(self, repeat: int) -> int:
        """Which start of the engines a repeat falls to, both counted from 1: in equal groups, or sizes one apart."""
        return 1 + (repeat - 1) * self.starts // self.repeats

    def matrix(self) -> list[Cell]:
        """Return all cells, shortest prompts and lowest load first. A search has one for each shape, without a load."""
        load, trace = self.load, self.load.trace
        loads = [(users, 0.0, 0) for users in load.concurrency] + [(0, rate, 0) for rate in load.rate]
        loads += [(0, 0.0, batch) for batch in load.batch]
        loads = loads or [(0, trace.rate if trace is not None else 0.0, 0)]
        return [
            Cell(
                prompt,
                output,
                users,
                rate,
                batch,
                shared_percent=round(share * 100),
                step=load.step,
                conversation=self.conversation,
                prefixes=self.prefixes,
                trace=trace.digest if trace is not None else "",
            )
            for prompt in self.prompt_tokens
            for output in self.output_tokens
            for share in self.shared_prefix or (0.0,)
            for users, rate, batch in loads
        ]

    def cells(self) -> list[Cell]:
        """Return the matrix without the cells that no context could hold."""
        return [cell for cell in self.matrix() if self.fits(cell)]

    def left_out(self) -> list[Cell]:
        """The cells of the matrix that need a longer context."""
        return [cell for cell in self.matrix() if not self.fits(cell)]

    def tokens_needed(self, cell: Cell) -> int:
        """Tokens of context that a cell's longest request takes."""
        trace = self.load.trace
        return trace.longest if trace is not None and trace.longest is not None else cell.longest

    def fits(self, cell: Cell) -> bool:
        """Whether a cell's requests fit the context that the scenario allows."""
        limits = (self.max_context, *(block.max_model_length for block in self._blocks()))
        return all(limit is None or self.tokens_needed(cell) <= limit for limit in limits)

    def serving_of(self, engine: str) -> Serving | None:
        """How an engine is to be set up: the common block, with a variant's own settings over it."""
        variant = self.variants.get(engine)
        return self.serving if variant is None else variant.over(self.serving)

    def cards_of(self, engine: str, kind: str | None) -> int:
        """How many GPUs an engine of this kind needs."""
        block = self.serving_of(engine)
        return parallel.cards_of(kind or "", {} if block is None else block.asked())

    def _blocks(self) -> list[Serving]:
        """The serving blocks of all engines that race; one for those that have none of their own."""
        names = self.engines if self.variants else [""]
        return [block for block in map(self.serving_of, names) if block is not None]

    def settings_apart(self) -> list[str]:
        """The serving settings in which the engines are to differ: what a race of variants asks about."""
        blocks = [self.serving_of(name) for name in self.engines] if self.variants else []
        return settings_apart({} if block is None else block.asked() for block in blocks) if blocks else []

    @property
    def stack_engines(self) -> list[str]:
        """The stack's engines that it names, each once."""
        found = (self.variants[name].engine if name in self.variants else name for name in self.engines)
        return list(dict.fromkeys(found))

    def shared_tokens(self, cell: Cell) -> int:
        """Tokens that open every prompt of a cell alike."""
        return cell.shared_tokens or self.shared_prefix_tokens

    @property
    def warmup(self) -> int:
        """Warm-up requests: of each user in a closed loop, in all in an open one."""
        if self.warmup_requests is not None:
            return self.warmup_requests
        if self.load.script:
            return 0
        searched = self.find_capacity is not None and self.find_capacity.of == "rate"
        if self.load.rate or self.load.trace is not None or searched:
            return OPEN_LOOP_WARMUP
        return self.conversation.turns if self.conversation is not None else 1

    def with_repeats(self, repeats: int) -> dict[str, int]:
        """Repeats, and starts in the proportion that they have to them."""
        starts = max(1, self.starts * repeats // self.repeats) if self.starts > 1 else 1
        return {"repeats": repeats, "starts": starts}

    def blocks(self, engines: Sequence[str], repeats: Iterable[int] | None = None) -> Iterator[Block]:
        """Yield the blocks in the order they run: A B, B A, then the mirror B A, A B, and so on.

        So drift of the machine falls on both: over two repeats a linear one cancels, over four a quadratic one too
        (the Thue-Morse sequence). Engines that are kept up change from block to block, others from turn to turn.
        Blocks that run together follow each other; those of both placements come now before, now behind the turns.

        Args:
            engines: the seats, in their order.
            repeats: which repeats, counted from 1; default: all of the scenario's.
        """
        for repeat in repeats if repeats is not None else range(1, self.repeats + 1):
            forth = (repeat - 1).bit_count() % 2 == 0
            order = list(engines) if forth else list(reversed(engines))
            if self.placement != "turns":
                for cell in self.cells():
                    alone = [Block(engine, cell, repeat) for engine in order] if self.placement == "both" else []
                    beside = [Block(e, cell, repeat, None, True, self.name_together(e)) for e in order]
                    yield from [*alone, *beside] if forth else [*beside, *alone]
                continue
            pairs = ((engine, cell) for engine in order for cell in self.cells())
            if self.between_blocks == "keep":
                pairs = ((engine, cell) for cell in self.cells() for engine in order)
            for engine, cell in pairs:
                yield Block(engine, cell, repeat)
