"""The manifest: all that is needed to repeat a run, and what became of each block."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, WrapValidator, field_validator
from pydantic_core import PydanticSerializationError

from loadgen.client.verdict import ClientVerdict
from loadgen.contention.reading import Contention
from loadgen.errors import UserError
from loadgen.files import read_regular, write_file
from loadgen.message import say
from loadgen.metrics.window import CutRule
from loadgen.validation import Count, Lenient, LongName, Moment, Name, Words, wrong_value

if TYPE_CHECKING:
    from loadgen.endpoints.endpoint import Endpoint
    from loadgen.endpoints.prompts import PromptRecipe
    from loadgen.scenario.cell import Cell

SCHEMA_VERSION = 1
BY_USER = say("interrupted by the user")
BY_SIGNAL = say("ended by SIGTERM")
"""Reasons of blocks that were."""
MAX_BYTES = 32 << 20
MAX_ENTRIES, MAX_ENGINES = 20_000, 64
"""Of a manifest; one of 1,000 blocks has 2 MB."""

BlockStatus = Literal["running", "complete", "interrupted", "failed"]
RunStatus = Literal["running", "complete", "interrupted", "failed"]
Verdict = Literal["equal", "unknown", "noted", "blocking"]
"""`unknown`: of an engine, or of all, it could not be told."""


def _unless_unreadable(value: object, read: Callable[[object], Any]) -> Any:
    try:
        return read(value)
    except ValidationError:
        return None


class EngineFacts(Lenient):
    """One engine as it was raced."""

    name: Name
    kind: str
    api: str
    base_url: str
    model: str
    version: str | None = None
    context_length: int | None = None
    needs: dict[str, Any] = Field(default_factory=dict)
    """What it needed of its requests, beside what is known of its kind; no header's value."""
    prompts: dict[str, Any] = Field(default_factory=dict)
    """How exact prompts were made: mode (ids or text), overhead tokens, where counts came from."""
    together_of: Name | None = None
    """In a race of both placements: the engine that this is, of the blocks that ran together with others'."""
    launch: dict[str, Any] = Field(default_factory=dict)
    """What the engine host knows: argv, environment without secrets, notes, packages, weights and their hash."""

    @property
    def seat(self) -> str:
        """What the stack and its exporters call the engine: another name where it raced as one of its settings."""
        seat = self.launch.get("seat")
        return seat if isinstance(seat, str) and seat else self.name

    @classmethod
    def of(cls, endpoint: Endpoint, recipe: PromptRecipe, launch: dict[str, Any] | None = None) -> EngineFacts:
        """Put down an endpoint, how prompts are made for it, and how it was launched; never its API key."""
        own = ("needs", "prompts", "launch", "together_of")
        plain = {name: getattr(endpoint, name) for name in cls.model_fields if name not in own}
        return cls(**plain, needs=endpoint.needs.told, prompts=recipe.facts(), launch=launch or {})


class Placed(Lenient):
    """Where one start of an engine ran, in a race whose engines run together."""

    engine: Name
    start: Count
    gpus: list[str] = Field(default_factory=list, max_length=MAX_ENGINES)
    """By index, as nvidia-smi counts them; empty without GPUs."""
    cpus: str = ""
    """Its cores as Linux lists them; empty where nobody pinned it."""
    memory_node: Count | None = None


class ParityFact(Lenient):
    """One thing that was compared between the engines before the race."""

    check: str
    equal: bool
    detail: Words
    values: dict[str, Words] = Field(default_factory=dict)
    name: str = ""
    """Stable name of preflight's check; empty in runs from before there was one."""
    verdict: Verdict | None = None
    accepted: bool = False
    """Whether a blocking finding was accepted by name."""
    advice: Words = ""
    """What to do about it; empty where nothing is to be done."""


class BlockFacts(Lenient):
    """What became of one block. Its records carry `record_id` in their `block` field."""

    id: LongName
    record_id: LongName
    """`id`, with `.aN` behind it when this is the N-th attempt."""
    engine: Name
    cell: Name
    repeat: Count
    attempt: Count = 1
    start: Count | None = None
    """Which start of its engine it ran on, counted from 1 over the run; always 1 for endpoints that someone else
    starts. None where it never ran, or nobody counted."""
    users: Count
    """Users of a closed loop; 0 in other loads."""
    rate: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 0.0
    """Requests a second of an open loop; 0 in other loads."""
    batch: Count = 0
    """Requests of each batch of a batch load; 0 in other loads."""
    warmup_requests: Count
    measured_requests: Count | None
    arrivals: Count | None = None
    """Of an open loop's schedule that ends (a trace), how many it has."""
    status: BlockStatus = "running"
    reason: Words | None = None
    started_at: Moment
    """Seconds since the Unix epoch."""
    ended_at: Moment | None = None
    ended_early: Words | None = None
    """Why a step of a search was ended before all its requests were measured, and is complete all the same."""
    client: Annotated[ClientVerdict | None, WrapValidator(_unless_unreadable)] = None
    """Whether the load generator was the limit; None where nobody judged, or in a way that is not ours."""
    beside: list[LongName] = Field(default_factory=list, max_length=MAX_ENGINES)
    """Record ids of the other engines' blocks that ran at the same instant; empty where engines took turns."""
    contention: Annotated[Contention | None, WrapValidator(_unless_unreadable)] = None
    """What else the machine did meanwhile; None where nobody looked, or in a way that is not ours."""

    @classmethod
    def begun(cls, block_id: str, engine: str, cell: Cell, *, attempt: int = 1, repeat: int = 1, **more: Any) -> Self:
        """Facts of a block that begins now; `more` are its requests and arrivals, as they are called here."""
        return cls(
            id=block_id,
            record_id=block_id if attempt == 1 else f"{block_id}.a{attempt}",
            engine=engine,
            cell=cell.id,
            repeat=repeat,
            attempt=attempt,
            users=cell.concurrency,
            rate=cell.rate,
            batch=cell.batch,
            started_at=time.time(),
            **more,
        )

    @property
    def cut_rule(self) -> CutRule:
        """How its records are divided into phases."""
        open_loop = self.rate > 0
        return CutRule(
            self.users, self.warmup_requests, self.measured_requests, open_loop, self.arrivals, batch=self.batch
        )

    @property
    def streams(self) -> int:
        """Requests in flight at most; 0 in an open loop, which has no bound."""
        return self.batch or self.users

    @property
    def client_limited(self) -> bool:
        """Whether the load generator is known to have been the limit."""
        return self.client is not None and self.client.limited

    @property
    def contended(self) -> bool:
        """Whether something else is known to have disturbed it, so that it is marked or decides nothing."""
        return self.contention is not None and bool(self.contention.findings)


class Session(Lenient):
    """One stretch of work on a run: a run that was stopped and resumed has several, with gaps between them."""

    started_at: Moment
    """Seconds since the Unix epoch."""
    ended_at: Moment | None = None
    """None while it goes on; of a session that was killed, when it last wrote the manifest."""
    command: list[str] = Field(default_factory=list)
    git: dict[str, Any] = Field(default_factory=dict)


class Manifest(Lenient):
    """`manifest.json` of a run folder."""

    schema_version: int = SCHEMA_VERSION
    run_id: Name
    source: Literal["bench", "web-ui"] = "bench"
    status: RunStatus = "running"
    started_at: Moment
    ended_at: Moment | None = None
    command: list[str] = Field(default_factory=list)
    sessions: list[Session] = Field(default_factory=list, max_length=MAX_ENTRIES)
    """Of a bench, in order; empty in manifests of before there were any."""
    scenario: dict[str, Any] = Field(default_factory=dict)
    engines: list[EngineFacts] = Field(default_factory=list, max_length=MAX_ENGINES)
    parity: list[ParityFact] = Field(default_factory=list, max_length=MAX_ENTRIES)
    blocks: list[BlockFacts] = Field(default_factory=list, max_length=MAX_ENTRIES)
    messages: list[Words] = Field(default_factory=list, max_length=MAX_ENTRIES)
    """What happened on the way, in words: engines that died, workers that were lost, an interrupt."""
    placed: list[Placed] = Field(default_factory=list, max_length=MAX_ENTRIES)
    """Each start of each engine, in a race whose engines run together; empty for engines that someone else places."""
    client_cpus: list[str] = Field(default_factory=list, max_length=MAX_ENGINES)
    """The cores of each load generator of such a race."""
    prometheus_url: str | None = None
    stack: dict[str, Any] = Field(default_factory=dict)
    """What ran the engines and Locust: runtime (processes or docker), and for docker project, profile and version."""
    host: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    git: dict[str, Any] = Field(default_factory=dict)
    clock: dict[str, Any] = Field(default_factory=dict)
    alpha: Annotated[float, Field(gt=1e-9, lt=1)] = 0.05
    """Level of its verdicts: less where a run was judged several times, see `until_decided`."""
    looks: list[Count] = Field(default_factory=list, max_length=MAX_ENTRIES)
    """Numbers of repeats at which it was or is to be judged; empty where that is once, at its end."""
    resume: str = ""
    """The command that goes on with it; empty where that is not known."""
    floor: dict[str, Any] | None = None
    """The load generator's own error on this host (`loadgen.client.floor.Floor`); None when it was not calibrated."""

    @field_validator("stack")
    @classmethod
    def _by_its_present_name(cls, stack: dict[str, Any]) -> dict[str, Any]:
        return {**stack, "runtime": "processes"} if stack.get("runtime") == "embedded" else stack

    @field_validator("host")
    @classmethod
    def _readable(cls, host: dict[str, Any]) -> dict[str, Any]:
        cards = host.get("gpus")
        known = [card for card in cards if isinstance(card, dict)] if isinstance(cards, list) else []
        return {**host, "gpus": known} if "gpus" in host else host

    def span(self) -> tuple[float, float]:
        """The first and the last moment that it knows of, seconds since the Unix epoch; equal where nothing ran."""
        moments = [self.started_at, *(block.started_at for block in self.blocks)]
        moments += [block.ended_at for block in self.blocks if block.ended_at is not None]
        moments += [] if self.ended_at is None else [self.ended_at]
        return min(moments), max(moments)

    def scenario_number(self, key: str, default: float) -> float:
        """A number of the scenario's; the default where it has none, or none that can be read."""
        value = self.scenario.get(key)
        return float(value) if isinstance(value, int | float) else default

    def complete_blocks(self) -> set[str]:
        """Ids of the blocks that are complete."""
        return {facts.id for facts in self.blocks if facts.status == "complete"}

    def block(self, record_id: str) -> BlockFacts | None:
        """Find a block by its record id."""
        return next((block for block in self.blocks if block.record_id == record_id), None)


def save_manifest(manifest: Manifest, path: Path) -> None:
    """Write the manifest so that a crash leaves either the old or the new one.

    Raises:
        UserError: it cannot be written, for example because the disk is full.
    """
    try:
        text = manifest.model_dump_json(indent=2)
    except PydanticSerializationError:  # half of a surrogate pair in some engine's words: written as `?`
        text = json.dumps(manifest.model_dump(mode="json"), ensure_ascii=False, indent=2)
    write_file(path, text + "\n", sync=True)


def load_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises UserError when it is missing or broken."""
    try:
        manifest = Manifest.model_validate_json(read_regular(path, MAX_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist: {path.parent} is not a run folder.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"])
        what = wrong_value(first) if where else first["msg"]
        raise UserError(f"{path}: not a readable manifest: {where + ': ' if where else ''}{what}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable manifest: {error}") from None
    if manifest.schema_version > SCHEMA_VERSION:
        raise UserError(
            f"{path} was written by a later Bakeoff (schema {manifest.schema_version}, "
            f"this one reads up to {SCHEMA_VERSION}); read it with that one."
        )
    return manifest


def new_run_id(name: str, now: float | None = None) -> str:
    """Return a sortable run id such as `20261122-140501-smoke` (UTC)."""
    moment = datetime.datetime.fromtimestamp(time.time() if now is None else now, datetime.UTC)
    return f"{moment:%Y%m%d-%H%M%S}-{name}"
