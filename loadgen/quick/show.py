"""What `run` ends with in a terminal: its figures as tables, and what went wrong."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadgen.metrics.endings import Endings
from loadgen.metrics.summary import CellSummary, Distribution
from loadgen.quick.result import QuickResult
from loadgen.record import ErrorKind


def show_quick(console: Console, result: QuickResult) -> None:
    """Print what `bakeoff run` ends with: a line on what was measured, tables, and what went wrong."""

    def tell(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), highlight=False, soft_wrap=True)

    plan, summary = result.plan, result.summary
    batches = f" ({summary.requests // plan.cell.batch} batches)" if plan.cell.batch else ""
    wanted = f" of {plan.requests}" if plan.requests is not None and summary.requests < plan.requests else ""
    window = f" in {summary.window_s:.1f} s" if summary.window_s else ""
    tell(
        f"{plan.cell.prompt_tokens} prompt + {plan.cell.output_tokens} output tokens, {plan.cell.load_text}: "
        f"{summary.requests}{wanted} requests measured{batches}{window}"
    )
    if summary.ttft_ms.count:
        console.print(latency_table(summary))
    if summary.no_tpot is not None:
        tell(f"No TPOT: {summary.no_tpot}.", "yellow")
    if summary.requests > sum(summary.errors.values()):
        console.print(rate_table(result))
    if summary.requests:
        short = lengths_words(result)
        if short:
            tell(short, "yellow")
        endings = Endings.of([summary])
        tell(f"Finish reasons: {endings.reasons_text or 'none'}", "yellow" if endings.mixed else "dim")
    if result.verdict.requests:
        style = "bold yellow" if result.verdict.limited else "dim"
        console.print(Text(result.verdict.sentence(), style=style), highlight=False)
    for kind, count in result.errors().items():
        tell(f"Failed: {count} x {kind}", "red")
    if result.last_error() is not None:
        tell(f"Last error: {result.last_error()}", "red")
    if ErrorKind.OUTPUT_TOKENS in result.errors():
        tell("Answers of another length are other work. --allow-short-output lets them end early.")
    if result.run.gave_up:
        tell("Given up: every request failed.", "red")
    if not summary.requests and not result.errors():
        why = "interrupted" if result.run.interrupted else "time was up"
        tell(f"Nothing was measured: {why} before a request behind the warm-up had ended.", "yellow")
    elif result.run.interrupted:
        tell("Interrupted: these are the figures of what was measured until then.", "yellow")


def lengths_words(result: QuickResult) -> str:
    """How long the answers are, where they ended early; empty where all are as long as was asked for."""
    wanted = result.plan.cell.output_tokens
    lengths = sorted(r.output_tokens for r in result.run.records if r.ok and r.output_tokens is not None)
    if result.plan.trace is not None or not lengths or lengths[0] == lengths[-1] == wanted:
        return ""
    median = lengths[len(lengths) // 2]
    return f"Answers of {lengths[0]} to {lengths[-1]} tokens, median {median}, where {wanted} were asked for"


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
    if summary.answer_ms is not None:
        rows.insert(1, ("First answer token (ms)", summary.answer_ms))
    if summary.batches is not None:
        rows += [
            ("TTFT, batch first (ms)", summary.batches.ttft_first_ms),
            ("TTFT, batch median (ms)", summary.batches.ttft_median_ms),
            ("TTFT, batch last (ms)", summary.batches.ttft_last_ms),
            ("Batch latency (ms)", summary.batches.latency_ms),
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
