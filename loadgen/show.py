"""What `run` and `bench` show in a terminal: progress while they run, tables at the end."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from loadgen.campaign import Listener
from loadgen.cell_summary import CellSummary, Distribution
from loadgen.manifest import BlockFacts
from loadgen.quick_result import QuickResult
from loadgen.scenario import Block

PLAIN_INTERVAL_S = 10.0
"""Where output is no terminal, a progress line is printed this often."""


class _StatusLine:
    """One line that is rewritten in a terminal, and printed now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=4) if console.is_terminal else None
        self._printed_at = 0.0
        self._printed = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def line(self, text: str) -> None:
        """Show how things stand."""
        if self._live is not None:
            self._live.update(Text(text, no_wrap=True, overflow="ellipsis"))
        elif time.monotonic() - self._printed_at >= PLAIN_INTERVAL_S and text != self._printed:
            self._printed_at, self._printed = time.monotonic(), text
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def say(self, text: str, style: str | None = None) -> None:
        """Print something that stays."""
        self._console.print(Text(text, style=style or ""), highlight=False, soft_wrap=True)


class QuickProgress(_StatusLine):
    """Progress of `loadgen run`."""

    def update(self, status: dict[str, Any]) -> None:
        """Show the collector's status."""
        errors = sum(status["errors"].values())
        wanted = status["wanted"]
        self.line(
            f"{status['seconds']:5.0f} s  "
            + ("warming up" if not status["warmed_up"] else f"measured {status['measured']}")
            + (f" of {wanted}" if wanted and status["warmed_up"] else "")
            + f"  in flight {status['in_flight']}"
            + (f"  errors {errors} ({status['last_error']})" if errors else "")
        )


class BenchProgress(_StatusLine, Listener):
    """Progress of `loadgen bench`, with the time that is left."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._block_started: tuple[str, float] = ("", 0.0)
        self._durations: list[float] = []

    def message(self, text: str) -> None:
        """Print what happened."""
        self.say(text, style="yellow")

    def engine(self, name: str, text: str) -> None:
        """Show an engine's start."""
        self.line(text if text.startswith(name) else f"{name}: {text}")

    def block(self, block: Block, number: int, total: int, status: dict[str, Any]) -> None:
        """Show a block's progress."""
        if self._block_started[0] != block.id:
            self._block_started = (block.id, time.monotonic())
        errors = sum(status["errors"].values())
        measured = f"{status['measured']}/{status['wanted']}" if status["warmed_up"] else "warming up"
        self.line(
            f"[{number}/{total}] {block.engine} {_cell(block)}: {measured}"
            + (f", {errors} errors" if errors else "")
            + self._left(number, total, status)
        )

    def block_ended(self, block: Block, number: int, total: int, facts: BlockFacts) -> None:
        """Print a block's outcome."""
        seconds = (facts.ended_at or facts.started_at) - facts.started_at
        if facts.status == "complete":
            self._durations.append(seconds)
        self.say(
            f"[{number}/{total}] {block.engine} {_cell(block)}: {facts.status} in {seconds:.1f} s"
            + (", client-limited" if facts.client is not None and facts.client["limited"] else "")
            + ("" if facts.attempt == 1 else f" (attempt {facts.attempt})"),
            style=None if facts.status == "complete" else "yellow",
        )

    def _left(self, number: int, total: int, status: dict[str, Any]) -> str:
        """Time left: this block's by its own pace, the others' by the mean of those that were completed."""
        running = time.monotonic() - self._block_started[1]
        measured, wanted = status["measured"], status["wanted"] or 0
        if measured:
            own = running / measured * max(wanted - measured, 0)
        elif self._durations:
            own = max(sum(self._durations) / len(self._durations) - running, 0)
        else:
            return ""
        durations = self._durations or [running + own]
        left = own + sum(durations) / len(durations) * (total - number)
        return f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"


def _cell(block: Block) -> str:
    cell = block.cell
    return f"{cell.prompt_tokens} prompt tokens x {cell.load_text}"


def show_quick(console: Console, result: QuickResult) -> None:
    """Print what `loadgen run` ends with: a line on what was measured, tables, and what went wrong."""

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), highlight=False, soft_wrap=True)

    plan, summary = result.plan, result.summary
    wanted = f" of {plan.requests}" if plan.requests is not None and summary.requests < plan.requests else ""
    window = f" in {summary.window_s:.1f} s" if summary.window_s else ""
    say(
        f"{plan.prompt_tokens} prompt + {plan.output_tokens} output tokens, {plan.cell.load_text}: "
        f"{summary.requests}{wanted} requests measured{window}"
    )
    if summary.ttft_ms.count:
        console.print(latency_table(summary))
    if summary.requests:
        console.print(rate_table(result))
        style = "bold yellow" if result.verdict.limited else "dim"
        console.print(Text(result.verdict.sentence(), style=style), highlight=False)
    for kind, count in result.errors().items():
        say(f"Failed: {count} x {kind}", "red")
    if result.last_error() is not None:
        say(f"Last error: {result.last_error()}", "red")
    if result.gave_up:
        say("Given up: every request failed.", "red")
    if not summary.requests and not result.errors():
        why = "interrupted" if result.interrupted else "time was up"
        say(f"Nothing was measured: {why} before a request behind the warm-up had ended.", "yellow")
    elif result.interrupted:
        say("Interrupted: these are the figures of what was measured until then.", "yellow")


def latency_table(summary: CellSummary) -> Table:
    """Latencies in ms."""
    table = Table()
    for column in ("", "mean", "p50", "p90", "p95", "p99", "max"):
        table.add_column(column, justify="left" if not column else "right")
    rows: list[tuple[str, Distribution]] = [
        ("TTFT (ms)", summary.ttft_ms),
        ("TPOT (ms)", summary.tpot_ms),
        ("ITL (ms)", summary.itl_ms),
        ("E2E (ms)", summary.e2e_ms),
    ]
    for name, d in rows:
        table.add_row(name, *(_ms(value) for value in (d.mean, d.p50, d.p90, d.p95, d.p99, d.max)))
    return table


def rate_table(result: QuickResult) -> Table:
    """Throughput, and what the client itself cost."""
    summary = result.summary
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value, form in (
        ("Output tokens/s", summary.output_tokens_per_s, ",.1f"),
        ("Total tokens/s", summary.total_tokens_per_s, ",.1f"),
        ("Requests/s", summary.requests_per_s, ",.2f"),
        ("Tokens per event", summary.tokens_per_event, ".2f"),
        ("Client CPU per event (us)", result.client.cpu_us_per_event, ",.0f"),
    ):
        table.add_row(name, "-" if value is None else format(value, form))
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}" if value < 100 else f"{value:,.0f}"
