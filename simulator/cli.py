"""The command line: `python -m simulator`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from simulator.config import load_config, parse_fault, parse_setting
from simulator.errors import SimulatorError
from simulator.server import Server
from simulator.truth import SUFFIXES, VALID

EPILOG = (
    "An oracle up to about 256 streams at TTFT 50 ms, TPOT 10 ms and 128 tokens (25,600 events/s), alone on one core. "
    "When more than 1% of its writes come later than --lag-limit-ms after they were due, its truth log, "
    "GET /truth/summary, the x-oracle header and the last line it prints say 'invalid: schedule missed'."
)
app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
INVALID_EXIT = 3


@app.command(epilog=EPILOG)
def serve(
    config: Annotated[Path | None, typer.Option(help="YAML file; options below go before it.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one [8100].")] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model [simulated].")] = None,
    personality: Annotated[str | None, typer.Option(help="vllm or ksana [vllm].")] = None,
    timing: Annotated[str | None, typer.Option(help="fixed or batching [fixed].")] = None,
    ttft_ms: Annotated[float | None, typer.Option(help="Fixed: time to first token [50].")] = None,
    tpot_ms: Annotated[float | None, typer.Option(help="Fixed: time per output token [10]; 0 is a blast.")] = None,
    ttft_jitter: Annotated[str | None, typer.Option(help="Fixed: uniform|normal|exponential:MS.")] = None,
    tpot_jitter: Annotated[str | None, typer.Option(help="Fixed: the same for each later event.")] = None,
    tokens_per_event: Annotated[int | None, typer.Option(help="Tokens in one event [1].")] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help="KIND:key=value,..., such as reset:after=3,every=10. Kinds: spike, stall, reset, http, "
                     "truncate, slow. Repeatable; a request's X-Sim-Fault header goes before it."),
    ] = None,
    drift_per_minute: Annotated[float | None, typer.Option(help="Share by which model times grow a minute.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of jitter, leads and shares [0].")] = None,
    cpu: Annotated[int | None, typer.Option(help="Pin to this core.")] = None,
    realtime: Annotated[bool | None, typer.Option("--realtime", help="SCHED_FIFO: needs root.")] = None,
    spin_us: Annotated[float | None, typer.Option(help="Poll without sleeping so long before a write [150].")] = None,
    lag_limit_ms: Annotated[float | None, typer.Option(help="Lag that 1% of the writes may pass [0.3].")] = None,
    truth: Annotated[Path | None, typer.Option(help="Write the truth log here at the end: .npz or .jsonl.")] = None,
    metrics_export_url: Annotated[str | None, typer.Option(help="Ksana: push OTLP metrics to this URL.")] = None,
    metrics_export_interval_ms: Annotated[int | None, typer.Option(help="Ksana: time between pushes [1000].")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting: KEY=VALUE, such as batching.max_num_seqs=64.")
    ] = None,
    require_valid: Annotated[bool, typer.Option(help="Exit with status 3 when the schedule was missed.")] = False,
) -> None:  # fmt: skip
    """Serve an OpenAI-compatible engine whose timing is exactly known, until interrupted."""
    given = {
        "host": host, "port": port, "model": model, "personality": personality, "timing": timing,
        "fixed.ttft_ms": ttft_ms, "fixed.tpot_ms": tpot_ms, "stream.tokens_per_event": tokens_per_event,
        "drift_per_minute": drift_per_minute, "seed": seed, "cpu": cpu, "realtime": realtime, "spin_us": spin_us,
        "lag_limit_ms": lag_limit_ms, "truth": truth, "metrics_export_url": metrics_export_url,
        "metrics_export_interval_ms": metrics_export_interval_ms,
        "fixed.ttft_jitter": _jitter("--ttft-jitter", ttft_jitter),
        "fixed.tpot_jitter": _jitter("--tpot-jitter", tpot_jitter),
        "faults": [parse_fault(text).model_dump(exclude_unset=True) for text in fault] if fault else None,
    }  # fmt: skip
    chosen = [parse_setting(text) for text in settings or ()]
    chosen += [(key, value) for key, value in given.items() if value is not None]
    cfg = load_config(config, chosen)
    if cfg.truth is not None:
        if cfg.truth.suffix not in SUFFIXES:
            raise SimulatorError(f"truth: {cfg.truth} must end in {' or '.join(SUFFIXES)}")
        if not cfg.truth.parent.is_dir():
            raise SimulatorError(f"truth: there is no folder {cfg.truth.parent}")
    server = Server(cfg)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.stop())
    print(f"simulator: {server.url} ({cfg.personality}, {cfg.timing} timing)", flush=True)
    server.run()
    if not _conclude(server) and require_valid:
        raise typer.Exit(INVALID_EXIT)


def _jitter(option: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    kind, colon, scale = text.partition(":")
    if not colon:
        raise SimulatorError(f"{option} {text!r}: must be KIND:MS, such as normal:2")
    return {"kind": kind, "scale_ms": scale}


def _conclude(server: Server) -> bool:
    """Write the truth log and print the verdict. Returns whether the schedule was kept."""
    log, path = server.log, server.cfg.truth
    if path is not None:
        try:
            log.save(path)
        except OSError as error:
            raise SimulatorError(f"{path}: cannot be written ({error.strerror})") from None
    if not log.requests:
        return True
    summary = log.summary()
    lag = summary["lag_ms"]
    spread = f", lag p50 {lag['p50']} p99 {lag['p99']} max {lag['max']} ms" if lag else ""
    valid = log.verdict() == VALID
    print(
        f"simulator: {summary['verdict']}: {summary['requests']} requests, {summary['writes']} writes{spread}"
        f" (limit {summary['lag_limit_ms']} ms)",
        file=sys.stdout if valid else sys.stderr,
        flush=True,
    )
    return valid


def main() -> int:
    """Run the command line and return its exit code. Errors meant for the user are one line."""
    try:
        app(standalone_mode=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except SimulatorError as error:
        print(f"simulator: {error}", file=sys.stderr)
        return 2
    return 0
