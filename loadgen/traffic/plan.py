"""A block as it crosses the borders between processes: what a campaign asks of Locust, and what its workers get."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, field_serializer, model_validator

from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.prompts import PromptFactory, PromptRecipe
from loadgen.engines import Api
from loadgen.errors import UserError
from loadgen.metrics.slo import Slo
from loadgen.metrics.window import CutRule
from loadgen.scenario.cell import Cell
from loadgen.scenario.trace import Trace
from loadgen.stream.timeouts import Timeouts
from loadgen.traffic.arrivals import Arrival
from loadgen.validation import LongName, Name

LOCAL = "local"
"""The worker's id where there is but one process."""


class BlockRequest(BaseModel):
    """One block, as it is asked for. Immutable; travels to Locust's master as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: Name
    """Name of its run's folder."""
    scenario: Name
    block: LongName
    """The block's record id."""
    engine: Name
    """Its name in the race, which records carry."""
    stack_name: str = ""
    """Name of the seat that Locust knows it by, where that is another."""
    endpoint_given: str = ""
    """What a person says in the form of the engine's endpoint, as `KEY=VALUE,KEY=VALUE`."""
    cell: Cell
    """The cell that this block is one repetition of."""
    arrival: Arrival = "poisson"
    """Of an open loop."""
    requests: int | None
    """Measured requests, whole batches in a batch load; None runs until it is stopped."""
    warmup_requests: int
    """Of each user, in all of an open loop, or of each place of a batch: that is, whole batches."""
    shared_prefix_tokens: int = 0
    seed: str
    """Of prompts and arrivals. The same for both engines, so that both get the very same."""
    timeouts: Timeouts = Timeouts()
    allow_short_output: bool = False
    """Whether an answer shorter than asked for is no error."""
    reasoning_end: str | None = None
    """What ends the reasoning inside answers' text, where the endpoint has no such tag of its own."""
    slo: Slo | None = None
    """The scenario's, so that who watches can hold figures against it."""
    begin_wall_ns: int = 0
    """When it begins, at the same instant as other engines' blocks, ns since the Unix epoch; 0: as soon as it can."""

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.requests is not None and self.requests != self.cell.whole(self.requests):
            raise ValueError(f"{self.requests} requests are no whole batches of {self.cell.batch}")
        return self

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read one. Raises ValueError when it is none."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            # Without the input: a plan may hold an API key, and this text is logged.
            first = error.errors(include_input=False, include_url=False)[0]
            raise ValueError(f"not a {cls.__name__}: {error.error_count()} mistakes, first: {first}") from None


class BlockPlan(BlockRequest):
    """The same, ready to run: all that the traffic side must know, as the master hands it to its workers."""

    endpoint: Endpoint
    recipe: PromptRecipe
    trace: Trace | None = None
    """What an open loop replays."""
    start_wall_ns: int = 0
    """When an open loop's schedule starts, ns since the Unix epoch, so that all workers start together."""
    workers: tuple[str, ...] = (LOCAL,)
    """Ids of the workers that share the block out among themselves, each in its seat. Everything that is shared out
    (users, prompts, arrivals) goes by seats: a worker that is started anew has another id, and takes the seat."""
    keep_text: bool = False
    request_ids: bool = False
    """Send each request's `RequestRecord.request_id` as `X-Request-Id`, so that a server's log can be joined."""

    @field_serializer("endpoint")
    def _without_key(self, endpoint: Endpoint) -> dict[str, Any]:
        """Keys never travel: a worker reads its own environment, see `with_key`."""
        fields = dataclasses.asdict(endpoint)
        del fields["api_key"]
        return fields

    def with_key(self, environ: Mapping[str, str]) -> Self:
        """The plan with its endpoint's API key, from the variable that it names. Raises UserError: it is not set."""
        variable = self.endpoint.api_key_env
        if variable is None:
            return self
        key = environ.get(variable)
        if not key:
            raise UserError(
                f"{variable}, which holds the API key of {self.endpoint.name}, is not set in this worker's environment."
            )
        return self.model_copy(update={"endpoint": dataclasses.replace(self.endpoint, api_key=key)})

    @property
    def api(self) -> Api:
        """Which API the endpoint is asked by."""
        return self.endpoint.api

    @property
    def cut_rule(self) -> CutRule:
        """How its records are divided into phases."""
        arrivals = len(self.trace.arrivals_ns) if self.trace is not None else None
        cell = self.cell
        return CutRule(
            cell.concurrency, self.warmup_requests, self.requests, cell.open_loop, arrivals, batch=cell.batch
        )

    def lengths(self, number: int) -> tuple[int, int]:
        """Tokens of the prompt and of the answer of an open loop's arrival."""
        if self.trace is not None and self.trace.prompt_tokens:
            return self.trace.prompt_tokens[number], self.trace.output_tokens[number]
        return self.cell.prompt_tokens, self.cell.output_tokens

    def prompt_number(self, number: int) -> int:
        """The prompt of an open loop's arrival: its own, but where the trace says which."""
        return self.trace.prompts[number] if self.trace is not None and self.trace.prompts else number

    @property
    def prompt_span(self) -> tuple[int, int]:
        """Tokens of its shortest and its longest prompt."""
        if self.trace is not None and self.trace.prompt_tokens:
            return min(self.trace.prompt_tokens), max(self.trace.prompt_tokens)
        return self.cell.prompt_tokens, self.cell.longest - self.cell.output_tokens

    def seat(self, worker: str) -> int:
        """A worker's place among those that share the block out. Raises UserError when it has none."""
        if worker not in self.workers:
            raise UserError(f"{worker} is not among the workers of block {self.block}.")
        return self.workers.index(worker)

    def prompt_factory(self) -> PromptFactory:
        """Return what makes its prompts. Raises UserError when they cannot be made."""
        shortest, longest = self.prompt_span
        return PromptFactory(
            self.recipe,
            prompt_tokens=longest,
            shortest=shortest,
            seed=self.seed,
            shared_prefix_tokens=self.shared_prefix_tokens,
            prefix_tokens=self.cell.prefixes.tokens if self.cell.prefixes is not None else 0,
        )

    def request_fields_json(self, output_tokens: int) -> str:
        """All fields of a request but the prompt, as the inside of a JSON object."""
        return json.dumps(self.endpoint.fields(output_tokens), separators=(",", ":"))[1:-1]

    def body(self, prompt_json: str, fields_json: str) -> bytes:
        """Body of a request, from the prompt and `request_fields_json`."""
        if self.api == "chat":
            return f'{{"messages":[{{"role":"user","content":{prompt_json}}}],{fields_json}}}'.encode()
        return f'{{"{"input" if self.api == "responses" else "prompt"}":{prompt_json},{fields_json}}}'.encode()
