"""Makes a block plan of a submitted form, when the engine that it names has been asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from locust.util.timespan import parse_timespan
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.endpoints.seats import Seat
from loadgen.endpoints.tokens import make_recipe
from loadgen.errors import UserError
from loadgen.runs.manifest import new_run_id
from loadgen.scenario.cell import Cell
from loadgen.scenario.trace import TRACE_FILE, Trace, read_trace
from loadgen.stream.timeouts import Timeouts
from loadgen.traffic.plan import BlockPlan

BY_HAND = "web-ui"
OPEN_LOOP_LEAD_NS = 1_500_000_000
"""An open loop starts this long after its plan was made: time for every worker to be told."""


class BlockForm(BaseModel):
    """What the form, or the campaign in its place, asks for. Texts come in; wrong ones are named one by one."""

    model_config = ConfigDict(extra="ignore")

    engine: str
    user_count: int = Field(ge=1, le=10_000)
    spawn_rate: float = Field(gt=0, allow_inf_nan=False)
    run_time: str = ""
    prompt_tokens: int = Field(ge=1)
    output_tokens: int = Field(ge=1)
    requests: int = Field(ge=0)
    warmup_requests: int = Field(ge=0)
    shared_prefix_tokens: int = Field(ge=0)
    rate: float = Field(default=0.0, ge=0, le=100_000, allow_inf_nan=False)
    arrival: Literal["poisson", "constant"] = "poisson"
    seed: str = Field(max_length=200)
    scenario: str = ""
    run_id: str = Field(default="", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,120}$|^$")
    block: str = Field(default="", max_length=200)
    cell: str = Field(default="", max_length=200)
    """Of a campaign's block: its lengths, load and shapes, in place of the fields above."""
    timeouts: str = ""


class Planner:
    """Turns a submitted form into a block plan; remembers how each engine counts tokens."""

    def __init__(self, seats: list[Seat], runs_dir: Path) -> None:
        """`runs_dir` is where run folders are: a trace is kept in its own."""
        self._runs_dir = runs_dir
        self._seats = {seat.name: seat for seat in seats}
        self._recipes: dict[Endpoint, PromptRecipe] = {}

    def names(self) -> list[str]:
        """Names of the engines that can be asked for."""
        return list(self._seats)

    def plan(self, values: Mapping[str, Any], workers: Sequence[str]) -> BlockPlan:
        """Return the plan for these field values, to be shared out among these workers.

        Raises:
            UserError: a field is wrong, the engine does not answer, or such prompts cannot be made.
        """
        try:
            form = BlockForm.model_validate(dict(values))
            timeouts = Timeouts.model_validate_json(form.timeouts) if form.timeouts else Timeouts()
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]).replace("_", " ") or "a field"
            raise UserError(f"{field}: {first['msg']}") from None
        # Locust checks these two as well, but only once the block has begun here.
        try:
            parse_timespan(form.run_time or "1s")
        except ValueError:
            raise UserError(
                f"run time: {form.run_time!r} is none; give one such as 20, 20s, 3m, 2h or 1h20m."
            ) from None
        seat = self._seats.get(form.engine)
        if seat is None:
            raise UserError(f"There is no engine {form.engine!r}. Known: {', '.join(self._seats) or 'none'}.")
        cell = _cell(form)
        if form.shared_prefix_tokens >= cell.prompt_tokens:
            raise UserError("Shared prefix tokens must be fewer than prompt tokens.")
        trace = self._trace(form.run_id, cell)
        endpoint = seat.inspect()
        _check_fit(cell, trace, endpoint)
        recipe = self._recipe(endpoint)
        plan = BlockPlan(
            run_id=form.run_id or new_run_id(BY_HAND),
            scenario=form.scenario or BY_HAND,
            block=form.block or f"{endpoint.name}.{cell.id}.r1",
            endpoint=endpoint,
            recipe=recipe,
            prompt_tokens=cell.prompt_tokens,
            output_tokens=cell.output_tokens,
            users=cell.concurrency,
            rate=cell.rate,
            arrival="trace" if cell.trace else form.arrival,
            trace_ns=trace.arrivals_ns if trace else (),
            trace_prompts=trace.prompt_tokens if trace else (),
            trace_outputs=trace.output_tokens if trace else (),
            trace_digest=cell.trace,
            step=cell.step,
            conversation=cell.conversation,
            shared_percent=cell.shared_percent,
            start_wall_ns=time.time_ns() + OPEN_LOOP_LEAD_NS,
            workers=tuple(workers),
            requests=form.requests or None,
            warmup_requests=form.warmup_requests,
            shared_prefix_tokens=form.shared_prefix_tokens,
            prompt_seed=form.seed or str(time.time_ns()),
            timeouts=timeouts,
        )
        # Made once here too, so that an impossible length is told to the person who asked for it.
        plan.prompt_factory()
        return plan

    def _trace(self, run_id: str, cell: Cell) -> Trace | None:
        """The trace that a cell replays, as the campaign left it in the run folder. Raises UserError."""
        if not cell.trace:
            return None
        trace = read_trace(self._runs_dir / run_id / TRACE_FILE)
        if trace.digest != cell.trace:
            raise UserError(f"The trace in the run folder of {run_id} is not the one of cell {cell.id}.")
        return trace

    def _recipe(self, endpoint: Endpoint) -> PromptRecipe:
        """Recipes hold for an engine's version and model; a restart of the same one need not be probed again."""
        if endpoint not in self._recipes:
            self._recipes[endpoint] = make_recipe(endpoint)
        return self._recipes[endpoint]


def _cell(form: BlockForm) -> Cell:
    """The cell that was asked for. Raises UserError."""
    if not form.cell:
        return Cell(form.prompt_tokens, form.output_tokens, 0 if form.rate else form.user_count, form.rate)
    try:
        return Cell.parse(form.cell)
    except ValueError as error:
        raise UserError(f"cell: {error}") from None


def _check_fit(cell: Cell, trace: Trace | None, endpoint: Endpoint) -> None:
    """Raise UserError when an engine's context cannot hold the longest request."""
    needed = cell.longest
    if trace is not None and trace.prompt_tokens:
        needed = max(map(sum, zip(trace.prompt_tokens, trace.output_tokens, strict=True)))
    if endpoint.context_length is not None and needed > endpoint.context_length:
        raise UserError(
            f"{needed - cell.output_tokens} prompt and {cell.output_tokens} output tokens do not fit: "
            f"{endpoint.name} serves a context of {endpoint.context_length} tokens."
        )
