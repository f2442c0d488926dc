"""The plan of one block: all that the traffic side must know, as the master hands it to its workers."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.prompts import PromptFactory, PromptRecipe
from loadgen.engines import Api
from loadgen.errors import UserError
from loadgen.scenario.cell import Cell
from loadgen.scenario.shapes import Conversation, Step
from loadgen.stream.timeouts import Timeouts
from loadgen.traffic.arrivals import Arrival


class BlockPlan(BaseModel):
    """One block, ready to run. Immutable; travels as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    run_id: str
    scenario: str
    block: str
    """The block's record id."""
    endpoint: Endpoint
    recipe: PromptRecipe
    prompt_tokens: int
    output_tokens: int
    users: int
    """Users of a closed loop; 0 in an open one."""
    rate: float = 0.0
    """Requests a second of an open loop, over all workers; 0 in a closed one."""
    arrival: Arrival = "poisson"
    trace_ns: tuple[int, ...] = ()
    """Arrivals of a trace, ns after the start."""
    trace_prompts: tuple[int, ...] = ()
    """Prompt tokens of each arrival of a trace; empty where it gives no lengths. Likewise the output tokens."""
    trace_outputs: tuple[int, ...] = ()
    trace_digest: str = ""
    step: Step | None = None
    """A burst in the arrivals."""
    conversation: Conversation | None = None
    """What the users of a closed loop hold in place of single requests."""
    shared_percent: int = 0
    """As the cell has it; `shared_prefix_tokens` is what comes of it."""
    start_wall_ns: int = 0
    """When an open loop's schedule starts, ns since the Unix epoch, so that all workers start together."""
    workers: tuple[str, ...] = ("local",)
    """Ids of the workers that share the block out among themselves, each in its seat. Everything that is shared out
    (users, prompts, arrivals) goes by seats: a worker that is started anew has another id, and takes the seat."""
    requests: int | None
    """Measured requests; None runs until it is stopped."""
    warmup_requests: int
    shared_prefix_tokens: int = 0
    prompt_seed: str
    timeouts: Timeouts = Timeouts()
    check_output_length: bool = True
    keep_text: bool = False
    request_ids: bool = False
    """Send each request's `RequestRecord.request_id` as `X-Request-Id`, so that a server's log can be joined."""

    @property
    def cell(self) -> Cell:
        """The cell that this block is one repetition of."""
        return Cell(
            self.prompt_tokens,
            self.output_tokens,
            0 if self.rate else self.users,
            self.rate,
            shared_percent=self.shared_percent,
            step=self.step,
            conversation=self.conversation,
            trace=self.trace_digest,
        )

    @property
    def prompt_span(self) -> tuple[int, int]:
        """Tokens of its shortest and its longest prompt."""
        if self.trace_prompts:
            return min(self.trace_prompts), max(self.trace_prompts)
        if self.conversation is not None:
            return self.prompt_tokens, self.conversation.longest_prompt(self.prompt_tokens, self.output_tokens)
        return self.prompt_tokens, self.prompt_tokens

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
            seed=self.prompt_seed,
            shared_prefix_tokens=self.shared_prefix_tokens,
        )

    @property
    def api(self) -> Api:
        """Which API the endpoint is asked by."""
        return self.endpoint.api

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str) -> BlockPlan:
        """Read a plan. Raises ValueError when it is not one."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            # Without the input: a plan may hold an API key, and this text is logged.
            first = error.errors(include_input=False, include_url=False)[0]
            raise ValueError(f"not a block plan: {error.error_count()} mistakes, first: {first}") from None

    def request_fields_json(self, output_tokens: int) -> str:
        """All fields of a request but the prompt, as the inside of a JSON object."""
        fields: dict[str, Any] = self.endpoint.engine.request_fields(self.endpoint.model, output_tokens)
        return json.dumps(fields, separators=(",", ":"))[1:-1]

    def body(self, prompt_json: str, fields_json: str) -> bytes:
        """Body of a request, from the prompt and `request_fields_json`."""
        if self.api == "chat":
            return f'{{"messages":[{{"role":"user","content":{prompt_json}}}],{fields_json}}}'.encode()
        return f'{{"prompt":{prompt_json},{fields_json}}}'.encode()
