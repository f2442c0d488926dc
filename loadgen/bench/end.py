"""What `bakeoff bench` ends with: its table, what went wrong, how to go on, and the exit code."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence

from rich.console import Console

from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError, end_code
from loadgen.machine import by_make
from loadgen.report import ReportData, report_data, terminal_table
from loadgen.runs.folder import RunFolder


def show_whole(folder: RunFolder, prometheus: str | None, whole: bool, console: Console) -> int:
    """Print the table of a run that came to its end. Returns the exit code, thresholds left aside."""
    data = report_data(folder, prometheus_url=prometheus)
    console.print(terminal_table(data))
    failed = sum(block.errors for block in data.blocks)
    if failed:
        console.print(f"{failed} measured requests failed; the report lists them by kind.", style="yellow")
    if not whole:
        console.print("Not every block was completed; the report says which and why.", style="yellow")
    failed = 0 if data.capacity else failed  # a search goes beyond what an engine can take
    limited = client_limited(data)
    if limited and (data.capacity or not data.comparisons):  # of a comparison the table's last line says so
        text = "Nothing can be judged: the load generator was the limit; what held it back stands above."
        console.print(text, style="bold red", soft_wrap=True)
    console.print(f"Records: {folder.path}", soft_wrap=True, highlight=False)
    console.print(f"Write its report with `{folder.report_command}`.", soft_wrap=True, highlight=False)
    return end_code(failed=bool(failed) or not whole, limited=limited)


def client_limited(data: ReportData) -> bool:
    """Whether nothing can be judged because the load generator was the limit."""
    complete = [block for block in data.blocks if block.status == "complete"]
    limited = [block for block in complete if block.client is not None and block.client.limited]
    if data.comparisons and not data.capacity:
        return bool(limited) and all(found.verdict == "invalid" for found in data.comparisons)
    return bool(limited) and len(limited) == len(complete)


def show_partial(folder: RunFolder, prometheus: str | None, resume: str, console: Console) -> None:
    """Print what there is of a run that broke off, and how to see it and go on; `resume` is the command for that."""
    lines = [
        f"What was measured is in {folder.path}",
        f"See it with `{folder.report_command}`; go on with `{resume}`.",
    ]
    with contextlib.suppress(UserError):
        data = report_data(folder, prometheus_url=prometheus)
        if any(block.records for block in data.blocks):
            console.print(terminal_table(data))
        else:
            lines = [f"Nothing was measured; what is known of this run is in {folder.path}"]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def resume_command(
    folder: RunFolder, engines: Sequence[Seat] | None, workers: int, gpu_metrics: str | None = None
) -> str:
    """The command that goes on with a run, of these endpoints or (None) of the stack's engines."""
    if not engines:
        path = shlex.quote(str(folder.path))
        return f"make bench RUN={path}" if by_make() else f"bakeoff bench --resume {path}"
    words = ["bakeoff", "bench", "--resume", str(folder.path)]
    for seat in engines:
        words += ["--engine", f"{seat.name}={seat.base_url}" + "".join(f",{text}" for text in seat.settings())]
    words += ["--gpu-metrics", gpu_metrics] if gpu_metrics else []
    words += ["--workers", str(workers)] if workers > 1 else []
    return shlex.join(words)
