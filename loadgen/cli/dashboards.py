"""`bakeoff dashboards`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli import options
from loadgen.cli.console import open_console
from loadgen.cli.options import RunName, RunsDir
from loadgen.files import check_writable
from loadgen.machine import HOME


def dashboards(
    run_name: RunName = None,
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Begin of a time range instead of a run's: ISO time (UTC)."),
    ] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Its end (default: now).")] = None,
    last: Annotated[str | None, typer.Option(metavar="30m", help="A time range that ends now.")] = None,
    prometheus: Annotated[
        str | None, typer.Option(metavar="URL", help="Prometheus to ask (default: the stack's).")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File to write (default: dashboards.html in the run's folder, or that of runs)."
        ),
    ] = None,
    runs_dir: RunsDir = None,
) -> None:
    """Write all panels of the Grafana boards as one offline page.

    Of a run, or of a time range. Exit code: 0 written, 2 not.
    """
    from loadgen.boards.write import write_dashboards

    check_writable(output)
    where = runs_dir or options.default_runs_dir()
    line = write_dashboards(HOME, where, run_name, (begin, end, last), prometheus, output)
    open_console().print(line, soft_wrap=True, highlight=False)
