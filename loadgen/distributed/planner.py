"""Makes a request of a submitted form, and a plan of a request, when the engine that it names has been asked."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from locust.util.timespan import parse_timespan
from pydantic import Field, ValidationError

from loadgen.distributed.form import OwnFields
from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.from_file import VARIABLE, allowed_here, check_variables
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.endpoints.seats import OWN, Seat, seat_of
from loadgen.endpoints.tokens import make_recipe
from loadgen.engines.needs import Given, parse_given
from loadgen.errors import UserError
from loadgen.runs.manifest import new_run_id
from loadgen.scenario.cell import Cell
from loadgen.scenario.trace import TRACE_FILE, Trace, read_trace
from loadgen.traffic.plan import BlockPlan, BlockRequest

BY_HAND = "web-ui"
"""The scenario of what was started in the web UI."""
OPEN_LOOP_LEAD_NS = 1_500_000_000
"""An open loop starts this long after its plan was made: time for every worker to be told."""


class Form(OwnFields):
    """All that is submitted. Texts come in; wrong ones are named one by one."""

    user_count: int = Field(ge=1, le=10_000)
    spawn_rate: float = Field(gt=0, allow_inf_nan=False)
    run_time: str = ""


def read_form(values: Mapping[str, Any]) -> BlockRequest:
    """What a person asks for. Raises UserError that names the field which is wrong."""
    try:
        form = Form.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]).replace("_", " ") or "a field"
        raise UserError(f"{field}: {first['msg']}") from None
    # Locust checks these two as well, but only once the block has begun here.
    try:
        parse_timespan(form.run_time or "1s")
    except ValueError:
        raise UserError(f"run time: {form.run_time!r} is none; give one such as 20, 20s, 3m, 2h or 1h20m.") from None
    if form.rate and form.batch:
        raise UserError("batch: give either a rate or a batch, and 0 for the other.")
    users = 0 if form.rate or form.batch else form.user_count
    cell = Cell(form.prompt_tokens, form.output_tokens, users, form.rate, form.batch)
    return BlockRequest(
        run_id=new_run_id(BY_HAND),
        scenario=BY_HAND,
        block=f"{form.engine}.{cell.id}.r1",
        engine=form.engine,
        cell=cell,
        arrival=form.arrival,
        requests=cell.whole(form.requests) or None,
        warmup_requests=form.warmup_requests,
        shared_prefix_tokens=form.shared_prefix_tokens,
        endpoint_given=form.endpoint.strip(),
        allow_short_output=form.short_output == "allowed",
        seed=form.seed or str(time.time_ns()),
    )


class Planner:
    """Turns what is asked for into a block plan; remembers how each engine counts tokens."""

    def __init__(self, seats: list[Seat], runs_dir: Path) -> None:
        """`runs_dir` is where run folders are: a trace is kept in its own."""
        self._runs_dir = runs_dir
        self._seats = {seat.name: seat for seat in seats}
        self._recipes: dict[Endpoint, PromptRecipe] = {}

    def names(self) -> list[str]:
        """Names of the engines that can be asked for."""
        return list(self._seats)

    def urls(self, engine: str) -> list[str]:
        """Where an engine answers; empty for one that is not known."""
        return [self._seats[engine].base_url] if engine in self._seats else []

    def plan(self, request: BlockRequest, workers: Sequence[str]) -> BlockPlan:
        """Return the plan for a request, to be shared out among these workers.

        Raises:
            UserError: it cannot be met, the engine does not answer, or such prompts cannot be made.
        """
        seat = self._seats.get(request.engine) or self._seats.get(request.stack_name)
        if seat is not None and request.endpoint_given:
            seat = _with(seat, request.endpoint_given)
        if seat is None:
            raise UserError(f"There is no engine {request.engine!r}. Known: {', '.join(self._seats) or 'none'}.")
        if request.shared_prefix_tokens >= request.cell.prompt_tokens:
            raise UserError("Shared prefix tokens must be fewer than prompt tokens.")
        trace = self._trace(request.run_id, request.cell)
        endpoint = dataclasses.replace(seat.inspect(), name=request.engine)
        _check_fit(request.cell, trace, endpoint)
        plan = BlockPlan(
            **dict(request),
            endpoint=endpoint,
            recipe=self._recipe(endpoint),
            trace=trace,
            start_wall_ns=max(time.time_ns() + OPEN_LOOP_LEAD_NS, request.begin_wall_ns),
            workers=tuple(workers),
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


def _with(seat: Seat, text: str) -> Seat:
    """A seat with what a form says of it. Raises UserError."""
    first, given = parse_given(f",{text}")
    if first or any("=env:" not in header for header in given.get("headers", ())):
        raise UserError(
            "endpoint: give KEY=VALUE,KEY=VALUE, such as model=m,header=api-key=env:VARIABLE. Headers are taken from "
            "the environment: what stands in a form is seen."
        )
    check_variables(
        [(seat.base_url, Given.of({key: given.get(key) for key in ("headers", "api_key_env")}, "endpoint: "))],
        lambda: allowed_here().union(seat.variables),
        "endpoint: the form",
        f"Name them in {VARIABLE}={{names}}, of the environment or of .env, and start the stack anew.",
    )
    own = {name: value for name in OWN if (value := getattr(seat, name)) is not None}
    return seat_of(seat.name, seat.base_url, {**own, **seat.needs.told, **given}, "endpoint: ")


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
