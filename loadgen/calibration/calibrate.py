"""`bakeoff calibrate`: the client against the simulator on this host, every record compared with the truth log.

Both processes stamp with CLOCK_MONOTONIC of the same machine. The truth of an event is the middle of the clock
readings on both sides of its `send`; that of a request's arrival is the server's kernel's stamp. So the TTFT error is
(t_first - t_send) - (truth of the first content write - truth of the arrival): the client's own lateness in sending
and reading, and the way through the loopback. TPOT, ITL and E2E likewise. The simulator is a process of its own;
none of its code is used here, nor any of the client's timing.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.table import Table

from loadgen.calibration.pinned_process import log_tail, may_realtime, pinned_process, read_truth, running_simulator
from loadgen.client.floor import Errors, Floor, FloorStep, save_floor
from loadgen.errors import CLIENT_LIMITED, OK, UserError
from loadgen.machine import git_facts, host_facts, package_versions
from loadgen.record import RequestRecord
from loadgen.runs.record_file import read_records

LADDER = (1, 16, 64, 256)
QUICK_LADDER = (1, 64)
TTFT_MS, TPOT_MS, TOKENS, PROMPT_TOKENS = 50.0, 10.0, 128, 32
STREAM_S = (TTFT_MS + (TOKENS - 1) * TPOT_MS) / 1e3
CONTENT = 2
"""Bit of the truth log's `kind`: docs/simulator.md."""
BUSY_LOAD = 0.5
"""A load average above this, before the start, is worth a note."""
Arrays = Mapping[str, npt.NDArray[Any]]


def compare(records: Sequence[RequestRecord], truth: Arrays) -> dict[str, npt.NDArray[np.float64]]:
    """Errors of the records against the truth, each stream's first request and failed ones left out.

    Args:
        records: records with `index` counted from 0 in each stream.
        truth: `event_*` and `request_*` arrays of the simulator's truth log.

    Returns:
        Client minus truth: `ttft_ms`, `e2e_ms`, `tpot_percent`, `tpot_ms` (shape requests) and `itl_ms` (shape
        gaps); `true_tpot_ms` (shape requests).

    Raises:
        UserError: a request or an event is on one side only.
    """
    numbers = {str(name): number for number, name in enumerate(truth["request_id"])}
    order = np.argsort(truth["event_request"], kind="stable")
    bounds = np.searchsorted(truth["event_request"][order], np.arange(len(truth["request_id"]) + 1))
    middle = (truth["event_before"] + truth["event_after"]) / 2
    content = (truth["event_kind"] & CONTENT) != 0
    found: dict[str, list[float]] = {
        name: [] for name in ("ttft_ms", "e2e_ms", "tpot_ms", "tpot_percent", "true_tpot_ms")
    }
    gaps = []
    for record in records:
        if not record.ok or not record.index or record.t_first is None or record.t_last is None:
            continue
        number = numbers.get(record.request_id)
        rows = order[bounds[number] : bounds[number + 1]] if number is not None else order[:0]
        rows = rows[content[rows]]
        if number is None or len(rows) != record.events:
            raise UserError(
                f"request {record.request_id}: the client saw {record.events} events, the simulator wrote {len(rows)}. "
                "This is a defect of Bakeoff's; please report it."
            )
        times, arrived = middle[rows], int(truth["request_t_arrived"][number])
        found["ttft_ms"].append(((record.t_first - record.t_send) - (times[0] - arrived)) / 1e6)
        found["e2e_ms"].append(((record.t_last - record.t_send) - (times[-1] - arrived)) / 1e6)
        if len(rows) > 1:
            true = (times[-1] - times[0]) / 1e6
            error = (record.t_last - record.t_first) / 1e6 - true
            found["tpot_ms"].append(error / (len(rows) - 1))
            found["true_tpot_ms"].append(true / (len(rows) - 1))
            found["tpot_percent"].append(100 * error / true if true else 0.0)
            gaps.append((np.diff(np.asarray(record.event_offsets_ns, dtype=np.float64)) - np.diff(times)) / 1e6)
    out = {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}
    out["itl_ms"] = np.concatenate(gaps) if gaps else np.zeros(0)
    return out


def calibrate(
    *, quick: bool, streams: Sequence[int] | None, output: Path, console: Console, isolate: bool = False
) -> Floor:
    """Run the ladder, write the floor and print its table.

    Args:
        quick: fewer loads and requests.
        streams: the ladder, instead of the usual one.
        output: where the floor goes.
        console: where to show it.
        isolate: SCHED_FIFO for the client too, against what else runs on its core.

    Raises:
        UserError: a process did not start or failed, or the file cannot be written. KeyboardInterrupt: no process
            is left, and no file written.
    """
    if not sys.platform.startswith("linux"):
        raise UserError("Calibration needs Linux: the simulator runs on nothing else.")
    cores = sorted(os.sched_getaffinity(0))
    notes = []
    if len(cores) == 1:
        notes.append("there is one core only, so client and simulator share it: the figures are pessimistic")
    realtime = len(cores) > 1 and may_realtime()
    if len(cores) > 1 and not realtime:
        notes.append("SCHED_FIFO is not permitted (needs root), so other processes can disturb the simulator")
    if isolate and not realtime:
        raise UserError("--isolate needs two cores and the right to use SCHED_FIFO (root or CAP_SYS_NICE).")
    if isolate:
        notes.append("the client had SCHED_FIFO, as it has not in a run: a busy machine disturbs a run more than this")
    load = os.getloadavg()[0]
    if load > BUSY_LOAD:
        notes.append(f"the machine was busy before the start (load average {load:.1f}): figures are pessimistic")
    ladder = list(streams or (QUICK_LADDER if quick else LADDER))
    console.print(
        f"Simulator on core {cores[0]}{' (SCHED_FIFO)' if realtime else ''}, client on core {cores[-1]}: "
        f"TTFT {TTFT_MS:g} ms, TPOT {TPOT_MS:g} ms, {TOKENS} tokens; about {_seconds(ladder, quick):.0f} s",
        highlight=False,
        soft_wrap=True,
    )
    for note in notes:
        console.print(f"Note: {note}.", style="yellow", highlight=False, soft_wrap=True)
    steps = []
    for count in ladder:
        with console.status(f"{count} streams") if console.is_terminal else contextlib.nullcontext():
            step = _step(count, _rounds(count, quick), (cores[0], cores[-1]), realtime, isolate)
            if realtime and not step.valid:
                # A simulator that spins all the time loses some of each second to starved processes: sched(7).
                other = _step(count, _rounds(count, quick), (cores[0], cores[-1]), False, isolate)
                if other.valid:
                    step = other
                    notes.append(f"{count} streams: measured with the simulator at ordinary priority")
            steps.append(step)
        console.print(_line(steps[-1]), highlight=False, soft_wrap=True)
    floor = Floor(
        measured_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        hostname=platform.node(),
        host=host_facts(),
        packages=package_versions(),
        git=git_facts(),
        server_core=cores[0],
        client_core=cores[-1],
        realtime=realtime,
        isolated=isolate,
        load_average=load,
        timing={"ttft_ms": TTFT_MS, "tpot_ms": TPOT_MS, "tokens": TOKENS},
        notes=notes,
        steps=steps,
    )
    save_floor(floor, output)
    console.print(floor_table(floor))
    console.print(_limit_words(floor), highlight=False, soft_wrap=True)
    console.print(f"Written to {output}", soft_wrap=True, highlight=False)
    return floor


def floor_table(floor: Floor) -> Table:
    """A row for each step; one that decides nothing is marked. Fits into 80 columns."""
    table = Table(
        title="Error of the client, client minus truth (ms; TPOT: of the mean, %)",
        box=box.SIMPLE_HEAD,
        padding=0,
        collapse_padding=True,
        title_justify="left",
    )
    names = (
        "streams",
        "TTFT p50",
        "p99",
        "max",
        "ITL p50",
        "p99",
        "E2E p50",
        "p99",
        "TPOT",
        "us/event",
        "MB",
        "oracle",
    )
    for name in names:
        table.add_column(name.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for step in floor.steps:
        ttft, itl, e2e = step.ttft_error_ms, step.itl_error_ms, step.e2e_error_ms
        table.add_row(
            str(step.streams),
            *(f"{value:.3f}" for value in (ttft.p50, ttft.p99, ttft.max, itl.p50, itl.p99, e2e.p50, e2e.p99)),
            f"{step.tpot_mean_error_percent:+.3f}",
            "-" if step.cpu_us_per_event is None else f"{step.cpu_us_per_event:.1f}",
            "-" if step.peak_rss_mb is None else f"{step.peak_rss_mb:.0f}",
            "valid" if step.valid else "late",
            style=None if step.valid else "dim",
        )
    return table


def _step(streams: int, rounds: int, cores: tuple[int, int], realtime: bool, isolate: bool) -> FloorStep:
    """One load: a fresh simulator, one `bakeoff run`, and their comparison."""
    with tempfile.TemporaryDirectory(prefix="bakeoff-calibrate-") as name:
        folder = Path(name)
        timing = ["--ttft-ms", str(TTFT_MS), "--tpot-ms", str(TPOT_MS)]
        with running_simulator(folder, cores[0], timing, realtime=realtime) as url:
            peak_kb = _client(folder, url, streams, rounds, cores[1], isolate)
        truth, summary = read_truth(folder)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        records, _ = read_records(folder / "records.jsonl")
    errors = compare(records, truth)
    if not len(errors["ttft_ms"]):
        raise UserError(f"{streams} streams: not one request was measured.")
    client = result["client"]
    lags = [lag for record in records if record.ok and record.index for lag in record.read_lags_ns]
    seconds = max(r.t_done for r in records) - min(r.t_send for r in records)
    return FloorStep(
        streams=streams,
        requests=len(errors["ttft_ms"]),
        events_per_s=sum(r.events for r in records) * 1e9 / seconds,
        valid=summary["verdict"] == "valid",
        verdict=summary["verdict"],
        oracle_lag_p99_ms=summary["lag_ms"].get("p99"),
        oracle_write_p99_ms=summary["write_ms"].get("p99", 0.0),
        ttft_error_ms=_errors(errors["ttft_ms"]),
        itl_error_ms=_errors(errors["itl_ms"]),
        e2e_error_ms=_errors(errors["e2e_ms"]),
        tpot_error_percent=_errors(errors["tpot_percent"]),
        tpot_mean_error_percent=float(100 * errors["tpot_ms"].mean() / errors["true_tpot_ms"].mean()),
        read_lag_p99_ms=float(np.percentile(lags, 99)) / 1e6 if lags else None,
        cpu_us_per_event=client.get("cpu_us_per_event"),
        peak_rss_mb=peak_kb / 1e3 if peak_kb else None,
        limited=client.get("limited"),
        limit_reasons=[str(reason) for reason in client.get("reasons") or []],
    )


def _client(folder: Path, url: str, streams: int, rounds: int, core: int, isolate: bool) -> int:
    """Run the client on its core to its end; return its peak memory in kB (0 where the system does not tell)."""
    command = [sys.executable, "-m", "loadgen", "run", "--base-url", url, "--concurrency", str(streams)]
    command += ["--requests", str(streams * rounds), "--prompt-tokens", str(PROMPT_TOKENS)]
    command += ["--output-tokens", str(TOKENS), "--request-ids", "--json", str(folder / "result.json")]
    command += ["--records", str(folder / "records.jsonl")]
    log = folder / "client.log"
    limit = time.monotonic() + 60 + 10 * STREAM_S * (rounds + 2)
    with log.open("wb") as out, pinned_process(command, core=core, stdout=out, stderr=out) as process:
        peak = 0
        if isolate:
            os.sched_setscheduler(process.pid, os.SCHED_FIFO, os.sched_param(5))
        while process.poll() is None:
            peak = max(peak, _peak_kb(process.pid))
            if time.monotonic() > limit:
                raise UserError(f"{streams} streams: the client did not end:\n{log_tail(log)}")
            time.sleep(0.1)
    if process.returncode not in (OK, CLIENT_LIMITED):  # a ladder is there to find where the client is the limit
        raise UserError(f"{streams} streams: the client failed (exit {process.returncode}):\n{log_tail(log)}")
    return peak


def _peak_kb(pid: int) -> int:
    """VmHWM of proc(5): unlike getrusage's, it knows nothing of the process before its exec."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _rounds(streams: int, quick: bool) -> int:
    """Measured requests of each stream: a single stream needs more of them for its percentiles."""
    few = 2 if quick else 5
    return max(few, (6 if quick else 20) // streams)


def _seconds(ladder: Sequence[int], quick: bool) -> float:
    return sum(4 + STREAM_S * (_rounds(streams, quick) + 2) for streams in ladder)


def _errors(values: npt.NDArray[np.float64]) -> Errors:
    size = np.abs(values)
    p50, p99 = np.percentile(size, (50, 99))
    return Errors(p50=float(p50), p99=float(p99), max=float(size.max()))


def _three(errors: Errors) -> str:
    return f"{errors.p50:.3f} / {errors.p99:.3f} / {errors.max:.2f}"


def _line(step: FloorStep) -> str:
    late = "" if step.valid else f"  (simulator {step.verdict}, lag p99 {step.oracle_lag_p99_ms} ms: decides nothing)"
    return f"{step.streams:4} streams: {step.requests} requests, TTFT error ms {_three(step.ttft_error_ms)}{late}"


def _limit_words(floor: Floor) -> str:
    judged = [step for step in floor.steps if step.valid and step.limited is not None]
    if not judged:
        return "Whether the client was the limit was not judged."
    if floor.limited_at is None:
        return f"The client was not the limit at up to {judged[-1].streams} streams."
    reasons = next(step.limit_reasons for step in judged if step.limited)
    return f"The client was the limit from {floor.limited_at} streams on: {'; '.join(reasons)}"
