"""`bakeoff report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli import options
from loadgen.cli.console import open_console
from loadgen.cli.options import GpuHour, Language, LanguageChoice, RunName, RunsDir, with_groups
from loadgen.errors import NOT_WHOLE, UserError
from loadgen.gate.options import Gate
from loadgen.machine import HOME


@with_groups
def report(
    *,
    run_name: RunName = None,
    runs_dir: RunsDir = None,
    prometheus_url: Annotated[
        str | None,
        typer.Option(
            "--prometheus",
            "--prometheus-url",
            metavar="URL",
            help="Prometheus to ask for memory, energy and boards (default: none).",
        ),
    ] = None,
    model_config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The model's config.json, for attention's part of TTFT (default: what the launchers recorded).",
        ),
    ] = None,
    gpu_hour: GpuHour = None,
    brief: Annotated[bool, typer.Option("--brief", help="Print the report's path only, not its table.")] = False,
    lang: Language = LanguageChoice.en,
    gate: Gate,
) -> None:
    """Write a run's report, and print its table.

    Into the run's folder: report.html, report.md and summary.json; dashboards.html too where the run has none yet and
    --prometheus names one that answers. Exit code: 0 written, and all thresholds hold, 1 nothing was measured, 2 not
    written, 3 a threshold failed, 4 none failed, but one is undecided.
    """
    from loadgen.analysis.attention import read_config
    from loadgen.boards.write import show_dashboards
    from loadgen.presentation.language import language_of
    from loadgen.report import nothing_measured, terminal_table, write_report
    from loadgen.runs.folder import RunFolder

    folder = RunFolder.find(runs_dir or options.default_runs_dir(), run_name)
    config = None if model_config is None else read_config(model_config)
    paths = write_report(
        folder, prometheus_url=prometheus_url, language=lang.value, model_config=config, gpu_hour=gpu_hour
    )
    console, told = open_console(), language_of(lang.value)
    if not brief:
        console.print(terminal_table(paths.data, told))
    code = gate.judge_run(folder, console, lang.value)
    console.print(told("Report: {page}", page=paths.html), soft_wrap=True, highlight=False)
    if not any(block.records for block in paths.data.blocks):
        raise UserError(f"{folder.path}: {nothing_measured(folder, paths.data)}", exit_code=NOT_WHOLE)
    if prometheus_url:
        show_dashboards(HOME, folder, prometheus_url, console)
    raise typer.Exit(code)
