"""`bakeoff run`."""

from __future__ import annotations

import dataclasses
import enum
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.cli.console import open_console
from loadgen.cli.options import ApiChoice, EndpointNeeds, JsonFile, with_groups
from loadgen.errors import INTERRUPTED, UserError, end_code
from loadgen.files import STDOUT, check_writable, write_result

if TYPE_CHECKING:
    from loadgen.endpoints.endpoint import Endpoint
    from loadgen.endpoints.seats import Seat
    from loadgen.quick.progress import QuickProgress
    from loadgen.scenario.trace import Trace


class ArrivalChoice(enum.StrEnum):
    """How the requests of an open loop arrive."""

    poisson = "poisson"
    constant = "constant"
    trace = "trace"


@with_groups
def run(
    *,
    base_url: Annotated[str, typer.Option(metavar="URL", help="Endpoint, such as http://127.0.0.1:8000.")],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model name; asked of the endpoint when left out.")
    ] = None,
    api: Annotated[ApiChoice | None, typer.Option(help="API to use (default: what suits the engine).")] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="KIND", help="Kind of engine (default: asked of the endpoint).")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=10_000, metavar="N", help="Users of a closed loop (default 1).")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="N", help="Requests a second of an open loop, instead of users.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, metavar="N", help="Send N requests at once, the next N when all have ended."),
    ] = None,
    arrival: Annotated[ArrivalChoice, typer.Option(help="How an open loop's requests arrive.")] = ArrivalChoice.poisson,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help='For --arrival trace: .jsonl lines of {"t": seconds}, with lengths or none.'),
    ] = None,
    rebase: Annotated[
        bool, typer.Option("--rebase", help="A trace's first arrival is the start: for one cut from the middle.")
    ] = False,
    requests: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Requests to measure (default 100, or no limit with --duration); whole batches."
        ),
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Prompt tokens of each request.")] = 512,
    output_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Output tokens of each request.")] = 128,
    warmup_requests: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Before measuring: requests of each user, or batches (default 1); requests of an open loop (10).",
        ),
    ] = None,
    shared_prefix_tokens: Annotated[
        int, typer.Option(min=0, metavar="N", help="Prompt tokens that all requests share.")
    ] = 0,
    tokenizer: Annotated[str | None, typer.Option(metavar="DIR", help="Folder with the model's tokenizer.")] = None,
    duration: Annotated[float | None, typer.Option(min=0.1, metavar="SECONDS", help="Stop after so long.")] = None,
    stall_timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, metavar="SECONDS", help="Longest silence of a stream.")
    ] = 120.0,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the prompts.")] = 1,
    allow_short_output: Annotated[
        bool, typer.Option("--allow-short-output", help="An answer shorter than asked for is no error.")
    ] = False,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Environment variable that holds the API key.")
    ] = None,
    needs: EndpointNeeds,
    json_file: JsonFile = None,
    records: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append every request record to this .jsonl file.")
    ] = None,
    request_ids: Annotated[
        bool, typer.Option("--request-ids", hidden=True, help="Send X-Request-Id: WORKER.USER.INDEX.")
    ] = False,
) -> None:
    """Measure one cell on any endpoint: no stack, in this process.

    Exit code: 0 all requests succeeded, 1 some failed, 2 wrong usage, 6 all succeeded, but the load generator was the
    limit, so that the figures are not the server's, 130 interrupted.
    """
    if batch is not None and any(other is not None for other in (concurrency, rate, trace)):
        raise UserError("--batch is a load of its own: leave out --concurrency, --rate and --trace.")
    # First of all imports: a thread, such as the progress line's, must not take the interpreter from the reader.
    from gevent import monkey

    monkey.patch_all()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from loadgen.endpoints.seats import seat_of
    from loadgen.endpoints.tokens import make_recipe
    from loadgen.quick.measure import run_quick
    from loadgen.quick.progress import QuickProgress
    from loadgen.scenario.cell import Cell
    from loadgen.scenario.model import OPEN_LOOP_WARMUP
    from loadgen.stream.timeouts import Timeouts
    from loadgen.traffic.plan import BlockPlan

    if shared_prefix_tokens >= prompt_tokens:
        raise UserError("--shared-prefix-tokens must be less than --prompt-tokens.")
    replayed, rate = _open_loop(concurrency, rate, arrival, trace, rebase=rebase)
    longest = prompt_tokens + output_tokens
    facts = replayed.facts(str(trace)) if replayed is not None else None
    if facts is not None and facts.prompt_tokens and facts.output_tokens and facts.longest:
        prompt_tokens, output_tokens, longest = facts.prompt_tokens, facts.output_tokens, facts.longest
    for file in (json_file, records):
        check_writable(file)
    console = open_console(stderr=json_file == STDOUT)
    progress = QuickProgress(console)
    given = {"kind": engine, "model": model, "api": api, "tokenizer": tokenizer, "api_key_env": api_key_env}
    seat = seat_of("endpoint", base_url, {**given, **needs.given()}, "--")
    endpoint = _ask(seat, longest, output_tokens, progress)
    if replayed is not None and replayed.note:
        progress.tell(f"{trace}: {replayed.note}")
    recipe = make_recipe(endpoint)
    warmup = warmup_requests if warmup_requests is not None else OPEN_LOOP_WARMUP if rate else 1
    wanted = requests if requests is not None or duration is not None else 100
    wanted = wanted if replayed is None else replayed.measured(requests, warmup)
    users = 0 if rate or batch else concurrency or 1
    cell = Cell(prompt_tokens, output_tokens, users, rate, batch or 0)
    plan = BlockPlan(
        run_id="run",
        scenario="run",
        block="run",
        engine=endpoint.name,
        endpoint=endpoint,
        recipe=recipe,
        cell=cell,
        arrival=arrival.value,
        trace=replayed,
        requests=None if wanted is None else cell.whole(wanted),
        warmup_requests=warmup,
        shared_prefix_tokens=shared_prefix_tokens,
        seed=str(seed),
        timeouts=Timeouts(stall_s=stall_timeout, total_s=max(600.0, stall_timeout)),
        allow_short_output=allow_short_output,
        request_ids=request_ids,
    )
    with progress:
        measured = run_quick(plan, duration_s=duration, records_file=records, on_progress=progress.update)
    # Not before: the process that times requests is to be small, and figures take numpy.
    from loadgen.quick.result import QuickResult
    from loadgen.quick.show import show_quick

    result = QuickResult.of(measured)
    show_quick(console, result)
    if json_file is not None:
        write_result(json_file, json.dumps(result.to_json(), indent=2) + "\n")
    if measured.write_error is not None:
        raise UserError(f"{measured.write_error}. The file of records is not whole.")
    if measured.interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(end_code(failed=result.failed, limited=result.verdict.limited))


def _ask(seat: Seat, longest: int, output_tokens: int, progress: QuickProgress) -> Endpoint:
    """The endpoint, named by its kind; what it is and needs is told.

    Raises UserError: a race has it, or a request would not fit.
    """
    from loadgen.endpoints.tokenizer import lacks_chat_template
    from loadgen.hosts.lock import refuse_while_engine_held

    refuse_while_engine_held(seat.base_url)
    endpoint = seat.inspect(progress.tell)
    if endpoint.context_length is not None and longest > endpoint.context_length:
        raise UserError(
            f"{longest - output_tokens} prompt and {output_tokens} output tokens do not fit into the context of "
            f"{endpoint.context_length} tokens that {endpoint.base_url} serves."
        )
    progress.tell(
        " ".join(filter(None, (endpoint.kind, endpoint.version)))
        + f" at {endpoint.base_url}, {endpoint.api} API, model {endpoint.model}"
    )
    if endpoint.api == "chat" and endpoint.tokenizer is not None and lacks_chat_template(endpoint.tokenizer):
        progress.tell(f"{endpoint.tokenizer}: its folder has no chat template; the server may need --api completions")
    return dataclasses.replace(endpoint, name=endpoint.kind)


def _open_loop(
    concurrency: int | None, rate: float | None, arrival: ArrivalChoice, trace: Path | None, *, rebase: bool
) -> tuple[Trace | None, float]:
    """The trace, and requests a second (0 in a closed loop). Raises UserError for what does not fit."""
    from loadgen.scenario.trace import read_trace

    if (arrival is ArrivalChoice.trace) != (trace is not None):
        raise UserError("--arrival trace and --trace FILE go together.")
    if trace is not None:
        if rate is not None or concurrency is not None:
            raise UserError("A trace has its own rate: leave out --rate and --concurrency.")
        replayed = read_trace(trace, rebase=rebase)
        return replayed, replayed.rate
    if rebase:
        raise UserError("--rebase goes with --trace FILE.")
    if rate is None:
        return None, 0.0
    if concurrency is not None:
        raise UserError("Give either --concurrency (closed loop) or --rate (open loop), not both.")
    if not 0 < rate <= 100_000:
        raise UserError("--rate must be more than 0 and at most 100000 requests a second.")
    return None, rate


def _leave(*_: object) -> None:
    # gevent's loop, where a signal finds a process that waits, prints the traceback of any other exception.
    raise SystemExit(INTERRUPTED)
