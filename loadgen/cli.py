"""The command line: `python -m loadgen run | bench | report | compare | export | dashboards | ...`."""

from __future__ import annotations

import enum
import io
import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loadgen.compare.command import compare
from loadgen.console import open_console as _console
from loadgen.errors import UserError
from loadgen.export.command import export
from loadgen.gate.options import FailIf, Gate, GithubSummary, Junit, MarkdownFile
from loadgen.preflight.names import BLOCKING, parse_accept

if TYPE_CHECKING:
    from loadgen.trace import Trace

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Bakeoff: a fair, reproducible bake-off between LLM serving engines.",
)
CHECKOUT = Path(__file__).resolve().parents[1]
INTERRUPTED = 130
MOST_REPEATS = "16"

RunsDir = Annotated[
    Path | None, typer.Option("--runs-dir", help="Folder of run folders (default: the stack's, or ./runs).")
]
Engines = Annotated[
    list[str] | None,
    typer.Option(help="NAME=URL of an endpoint that already runs (repeatable); without it, the stack's engines."),
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[,NAME]",
        help=f"Go on although preflight found this (repeatable): {', '.join(BLOCKING)}.",
    ),
]


class ApiChoice(enum.StrEnum):
    """Which OpenAI API the endpoint is asked by."""

    chat = "chat"
    completions = "completions"


class ArrivalChoice(enum.StrEnum):
    """How the requests of an open loop arrive."""

    poisson = "poisson"
    constant = "constant"
    trace = "trace"


class LanguageChoice(enum.StrEnum):
    """What a report is written in."""

    en = "en"
    zh = "zh"


@app.command()
def run(
    base_url: Annotated[str, typer.Option(help="Endpoint, such as http://127.0.0.1:8000.")],
    model: Annotated[str | None, typer.Option(help="Model name; asked of the endpoint when left out.")] = None,
    api: Annotated[ApiChoice | None, typer.Option(help="API to use (default: what suits the engine).")] = None,
    engine: Annotated[str | None, typer.Option(help="Kind of engine (default: asked of the endpoint).")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=10_000, help="Users of a closed loop (default 1).")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Requests a second of an open loop, instead of users.")] = None,
    arrival: Annotated[ArrivalChoice, typer.Option(help="How an open loop's requests arrive.")] = ArrivalChoice.poisson,
    trace: Annotated[
        Path | None, typer.Option(help='For --arrival trace: .jsonl lines of {"t": seconds}, with lengths or none.')
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Requests to measure (default 100, or no limit with --duration).")
    ] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Prompt tokens of each request.")] = 512,
    output_tokens: Annotated[int, typer.Option(min=1, help="Output tokens of each request.")] = 128,
    warmup_requests: Annotated[
        int | None,
        typer.Option(
            min=0, help="Requests before measuring: of each user (default 1), or of an open loop (default 10)."
        ),
    ] = None,
    shared_prefix_tokens: Annotated[int, typer.Option(min=0, help="Prompt tokens that all requests share.")] = 0,
    tokenizer: Annotated[str | None, typer.Option(help="Folder with the model's tokenizer.json.")] = None,
    duration: Annotated[float | None, typer.Option(min=0.1, help="Stop after so many seconds.")] = None,
    stall_timeout: Annotated[
        float, typer.Option(min=0.1, max=86_400, help="Longest silence of a stream, seconds.")
    ] = 120.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the prompts.")] = 1,
    allow_short_output: Annotated[
        bool, typer.Option("--allow-short-output", help="An answer shorter than asked for is no error.")
    ] = False,
    api_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the API key.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the result to this file (- for stdout).")
    ] = None,
    records: Annotated[Path | None, typer.Option(help="Append every request record to this .jsonl file.")] = None,
    request_ids: Annotated[
        bool, typer.Option("--request-ids", hidden=True, help="Send X-Request-Id: WORKER.USER.INDEX.")
    ] = False,
) -> None:
    """Measure one cell on any endpoint: no stack, in this process.

    Exit code: 0 all requests succeeded, 1 some failed, 2 wrong usage, 130 interrupted.
    """
    # First of all imports: a thread, such as the progress line's, must not take the interpreter from the reader.
    from gevent import monkey

    monkey.patch_all()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    from loadgen.endpoint import inspect_endpoint
    from loadgen.plan import BlockPlan
    from loadgen.progress import QuickProgress
    from loadgen.quick import run_quick
    from loadgen.scenario import OPEN_LOOP_WARMUP, Timeouts
    from loadgen.tokens import make_recipe

    if shared_prefix_tokens >= prompt_tokens:
        raise UserError("--shared-prefix-tokens must be less than --prompt-tokens.")
    replayed, rate = _open_loop(concurrency, rate, arrival, trace)
    longest = prompt_tokens + output_tokens
    facts = replayed.facts(str(trace)) if replayed is not None else None
    if facts is not None and facts.prompt_tokens and facts.output_tokens and facts.longest:
        prompt_tokens, output_tokens, longest = facts.prompt_tokens, facts.output_tokens, facts.longest
    for file in (json_file, records):
        _check_writable(file)
    to_stdout = json_file is not None and str(json_file) == "-"
    console = _console(stderr=to_stdout)
    endpoint = inspect_endpoint(
        base_url,
        kind=engine,
        model=model,
        api=api.value if api else None,
        tokenizer=tokenizer,
        api_key=_api_key(api_key_env),
    )
    if endpoint.context_length is not None and longest > endpoint.context_length:
        raise UserError(
            f"{longest - output_tokens} prompt and {output_tokens} output tokens do not fit into the context of "
            f"{endpoint.context_length} tokens that {endpoint.base_url} serves."
        )
    progress = QuickProgress(console)
    progress.say(
        " ".join(filter(None, (endpoint.kind, endpoint.version)))
        + f" at {endpoint.base_url}, {endpoint.api} API, model {endpoint.model}"
    )
    recipe = make_recipe(endpoint)
    wanted = requests if requests is not None else (None if duration is not None else 100)
    warmup = warmup_requests if warmup_requests is not None else OPEN_LOOP_WARMUP if rate else 1
    if replayed is not None:
        wanted = replayed.measured(requests, warmup)
    plan = BlockPlan(
        run_id="run",
        scenario="run",
        block="run",
        endpoint=endpoint,
        recipe=recipe,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        users=0 if rate else concurrency or 1,
        rate=rate,
        arrival=arrival.value,
        trace_ns=replayed.arrivals_ns if replayed else (),
        trace_prompts=replayed.prompt_tokens if replayed else (),
        trace_outputs=replayed.output_tokens if replayed else (),
        requests=wanted,
        warmup_requests=warmup,
        shared_prefix_tokens=shared_prefix_tokens,
        prompt_seed=str(seed),
        timeouts=Timeouts(stall_s=stall_timeout, total_s=max(600.0, stall_timeout)),
        check_output_length=not allow_short_output,
        request_ids=request_ids,
    )
    with progress:
        measured = run_quick(plan, duration_s=duration, records_file=records, on_progress=progress.update)
    # Not before: the process that times requests is to be small, and figures take numpy.
    from loadgen.quick_result import QuickResult
    from loadgen.show import show_quick

    result = QuickResult.of(measured)
    show_quick(console, result)
    if json_file is not None:
        text = json.dumps(result.to_json(), indent=2) + "\n"
        if to_stdout:
            sys.stdout.write(text)
        else:
            _write(json_file, text)
    if measured.write_error is not None:
        raise UserError(f"{measured.write_error}. The file of records is not whole.")
    if measured.interrupted:
        raise typer.Exit(INTERRUPTED)
    raise typer.Exit(1 if result.failed else 0)


@app.command()
def bench(
    scenario: Annotated[
        str | None, typer.Argument(help="Name of a shipped scenario, or a .yaml file (default: smoke).")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Go on with a run that was stopped, at its first unfinished block."),
    ] = None,
    engine: Engines = None,
    api: Annotated[ApiChoice | None, typer.Option(help="API to use for every --engine.")] = None,
    model: Annotated[str | None, typer.Option(help="Model name for every --engine.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder with the model's tokenizer.json, for --engine.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the API key, for --engine.")
    ] = None,
    runs_dir: RunsDir = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Measured requests a block, over the scenario's.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Repeats, over the scenario's.")] = None,
    until_decided: Annotated[
        int | None,
        typer.Option(
            min=2, max=256, metavar="[MAX]", help="Repeat until the verdict is clear, at most MAX times (default 16)."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, over the scenario's.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Locust workers, for a race without the stack (default 1).")
    ] = None,
    accept: Accept = None,
    fail_if: FailIf = None,
    junit: Junit = None,
    markdown: MarkdownFile = None,
    github_summary: GithubSummary = False,
) -> None:
    """Race engines over a scenario, through Locust, into a run folder.

    Exit code: 0 every block was completed without a failed request, 1 not so, 2 wrong usage, 3 preflight found engines
    that cannot be compared, or a threshold failed, 4 none failed, but one is undecided, 130 interrupted.
    """
    from loadgen.bench import run_bench

    gate = Gate(fail_if, junit, markdown, github_summary)
    codes: list[int] = []
    if engine:
        gate.check_engines(len(engine))
    _only_with_engines(engine, {"--api": api, "--model": model, "--tokenizer": tokenizer, "--workers": workers})
    overrides: dict[str, Any] = {"requests": requests, "repeats": repeats, "seed": seed}
    overrides = {key: value for key, value in overrides.items() if value is not None}
    if resume is not None and (scenario is not None or overrides):
        raise UserError("--resume goes on with the run's own scenario: leave out the scenario's name and its settings.")
    ok = run_bench(
        scenario,
        resume=resume,
        most_repeats=until_decided,
        checkout=CHECKOUT,
        engines=_seats(engine, api, model, tokenizer, api_key_env) if engine else None,
        runs_dir=runs_dir,
        overrides=overrides,
        default_runs_dir=default_runs_dir(),
        workers=workers or 1,
        accepted=parse_accept(accept or ()),
        console=_console(),
        at_end=lambda folder: codes.append(gate.judge_run(folder, _console())),
    )
    raise typer.Exit(max(codes, default=0) or (0 if ok else 1))


@app.command()
def preflight(
    scenario: Annotated[
        str | None, typer.Argument(help="Scenario that the engines are to be fit for: a name, or a .yaml file.")
    ] = None,
    engine: Engines = None,
    api: Annotated[ApiChoice | None, typer.Option(help="API to use for every --engine.")] = None,
    model: Annotated[str | None, typer.Option(help="Model name for every --engine.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder with the model's tokenizer.json, for --engine.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the API key, for --engine.")
    ] = None,
    accept: Accept = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the findings to this file (- for stdout).")
    ] = None,
) -> None:
    """Compare engines before a race: the same tokens in, the same text out, and how each one answers.

    Every race begins with it. Exit code: 0 nothing stands in the way, 3 a race would mean nothing, 2 wrong usage.
    """
    from loadgen.preflight.command import run_preflight

    _only_with_engines(engine, {"--api": api, "--model": model, "--tokenizer": tokenizer})
    _check_writable(json_file)
    run_preflight(
        scenario,
        checkout=CHECKOUT,
        engines=_seats(engine, api, model, tokenizer, api_key_env) if engine else None,
        accepted=parse_accept(accept or ()),
        json_file=json_file,
        console=_console(stderr=json_file is not None and str(json_file) == "-"),
    )


@app.command()
def report(
    run_name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Run id or folder (default: the newest).")
    ] = None,
    runs_dir: RunsDir = None,
    prometheus_url: Annotated[str | None, typer.Option(help="Prometheus to ask (default: the one of the run).")] = None,
    brief: Annotated[bool, typer.Option("--brief", help="Print the report's path only, not its table.")] = False,
    lang: Annotated[
        LanguageChoice, typer.Option(help="Language of the pages; zh writes report.zh.html and report.zh.md.")
    ] = LanguageChoice.en,
    fail_if: FailIf = None,
    junit: Junit = None,
    markdown: MarkdownFile = None,
    github_summary: GithubSummary = False,
) -> None:
    """Write report.html, report.md and summary.json into a run's folder, and print its table.

    Also dashboards.html, where the run has none yet and Prometheus answers. Exit code: 0 written, and all thresholds
    hold; 2 not; 3 a threshold failed; 4 none failed, but one is undecided.
    """
    from loadgen.boards.command import show_dashboards
    from loadgen.manifest import load_manifest
    from loadgen.report import terminal_table, write_report
    from loadgen.run_folder import RunFolder

    gate = Gate(fail_if, junit, markdown, github_summary)
    folder = RunFolder.find(runs_dir or default_runs_dir(), run_name)
    url = prometheus_url or load_manifest(folder.manifest_path).prometheus_url
    paths = write_report(folder, prometheus_url=url, language=lang.value)
    console = _console()
    if not brief:
        console.print(terminal_table(paths.data))
    code = gate.judge_run(folder, console)
    console.print(f"Report: {paths.html}", soft_wrap=True, highlight=False)
    if url:
        show_dashboards(CHECKOUT, folder, url, console)
    raise typer.Exit(code)


app.command()(compare)
app.command()(export)


@app.command()
def dashboards(
    run_name: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Run id or folder (default: the newest).")
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="T", help="Begin of a time range instead of a run's: ISO time (UTC)."),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="T", help="Its end (default: now).")] = None,
    last: Annotated[str | None, typer.Option(metavar="30m", help="A time range that ends now.")] = None,
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Prometheus to ask (default: the run's, or the stack's).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="File to write (default: dashboards.html in the run's folder, or that of runs).")
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Write all panels of the Grafana boards as one offline page, for a run or a time range."""
    from loadgen.boards.command import write_dashboards

    _check_writable(output)
    where = runs_dir or default_runs_dir()
    line = write_dashboards(CHECKOUT, where, run_name, (begin, end, last), prometheus, output)
    _console().print(line, soft_wrap=True, highlight=False)


@app.command()
def scenarios() -> None:
    """List the scenarios that come with Bakeoff, and the question that each answers."""
    from loadgen.scenario_file import load_scenario, shipped_scenarios

    for name in shipped_scenarios():
        typer.echo(f"{name:16} {load_scenario(name).question}")


@app.command()
def calibrate(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer loads and requests: half a minute.")] = False,
    streams: Annotated[
        list[int] | None, typer.Option(min=1, max=10_000, help="Streams at once (repeatable; default 1, 16, 64, 256).")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Where to write it (default: .bakeoff/calibration.json, which reports quote).")
    ] = None,
    isolate: Annotated[
        bool, typer.Option("--isolate", help="On a busy machine: SCHED_FIFO for the client too (needs root).")
    ] = False,
) -> None:
    """Measure the load generator's own error on this host, against a simulator whose timing is known.

    Exit code: 0 the simulator kept its schedule at every load, 1 not so, 2 an error, 130 interrupted.
    """
    from rich.console import Console

    from loadgen.calibrate import calibrate as run_calibration
    from loadgen.floor import FLOOR_FILE

    _check_writable(output)
    floor = run_calibration(
        quick=quick, streams=streams, output=output or FLOOR_FILE, console=Console(), isolate=isolate
    )
    raise typer.Exit(0 if all(step.valid for step in floor.steps) else 1)


def default_runs_dir() -> Path:
    """Where runs are kept: BAKEOFF_RUNS_DIR from the environment or `.env`, else `runs`; from the checkout's top."""
    from embedded.settings import load_settings

    return CHECKOUT / load_settings(CHECKOUT).runs_dir


def _only_with_engines(engines: list[str] | None, flags: dict[str, Any]) -> None:
    for flag, value in flags.items():
        if value is not None and not engines:
            raise UserError(
                f"{flag} goes with --engine NAME=URL; without it the stack's engines are raced as they are."
            )


def _seats(
    engines: list[str], api: ApiChoice | None, model: str | None, tokenizer: str | None, api_key_env: str | None
) -> list[Any]:
    from loadgen.endpoint import normalise_url
    from loadgen.seats import Seat

    _api_key(api_key_env)
    seats: list[Seat] = []
    for item in engines:
        name, equals, url = item.partition("=")
        if not equals or not name or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise UserError(f"--engine {item!r}: give NAME=URL, such as --engine vllm=http://127.0.0.1:8000.")
        if any(seat.name == name for seat in seats):
            raise UserError(f"--engine {item!r}: the name {name!r} is taken twice.")
        seats.append(
            Seat(
                name=name,
                base_url=normalise_url(url),
                model=model,
                api=api.value if api else None,
                tokenizer=tokenizer,
                api_key_env=api_key_env,
            )
        )
    return seats


def _open_loop(
    concurrency: int | None, rate: float | None, arrival: ArrivalChoice, trace: Path | None
) -> tuple[Trace | None, float]:
    """The trace, and requests a second (0 in a closed loop). Raises UserError for what does not fit."""
    from loadgen.trace import read_trace

    if (arrival is ArrivalChoice.trace) != (trace is not None):
        raise UserError("--arrival trace and --trace FILE go together.")
    if trace is not None:
        if rate is not None or concurrency is not None:
            raise UserError("A trace has its own rate: leave out --rate and --concurrency.")
        replayed = read_trace(trace)
        return replayed, replayed.rate
    if rate is None:
        return None, 0.0
    if concurrency is not None:
        raise UserError("Give either --concurrency (closed loop) or --rate (open loop), not both.")
    if not 0 < rate <= 100_000:
        raise UserError("--rate must be more than 0 and at most 100000 requests a second.")
    return None, rate


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UserError(f"--api-key-env {variable}: that environment variable is not set.")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"--api-key-env {variable}: that key holds a line break or another unprintable character.")
    return key


def _check_writable(file: Path | None) -> None:
    """Find out before the load, not after it, that a result cannot be written."""
    if file is None or str(file) == "-":
        return
    folder = file.absolute().parent
    if file.is_dir():
        raise UserError(f"{file}: cannot be written: it is a folder.")
    if not folder.is_dir() or not os.access(folder, os.W_OK) or (file.exists() and not os.access(file, os.W_OK)):
        raise UserError(f"{file}: cannot be written: its folder must exist and be writable.")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{file}: cannot be written: {error.strerror or error}") from None


def _terminate(*_: object) -> None:
    raise KeyboardInterrupt


def _leave(*_: object) -> None:
    # gevent's loop, where a signal finds a process that waits, prints the traceback of any other exception.
    raise SystemExit(INTERRUPTED)


def _with_most_repeats(arguments: list[str]) -> list[str]:
    """`--until-decided` may stand without its number, which the parser does not know of."""
    words: list[str] = []
    for word, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        words.append(word)
        if word == "--until-decided" and not following.isdigit():
            words.append(MOST_REPEATS)
    return words


def main() -> int:
    """Run the command line and return its exit code. Errors meant for the user are printed as they are."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our characters shows ? for them
    try:
        app(_with_most_repeats(sys.argv[1:]), standalone_mode=True)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("Interrupted.", file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away (`| head`): not a failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0
