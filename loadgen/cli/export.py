"""`bakeoff export`: the command. Light at the top: every command loads this."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli.options import RunsDir, default_runs_dir


class Format(enum.StrEnum):
    """Whose format."""

    vllm = "vllm"
    llm_d = "llm-d"


def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run id or folder.")],
    form: Annotated[
        Format,
        typer.Option(
            "--format", help="vllm: JSON of `vllm bench serve --save-result`; llm-d: report of llm-d-benchmark."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write it (default: RUN/export-FORMAT).")
    ] = None,
    detailed: Annotated[
        bool, typer.Option("--detailed", help="vllm: each request too, as with --save-detailed.")
    ] = False,
    runs_dir: RunsDir = None,
) -> None:
    """Write a run in another tool's format.

    One file for each engine, cell and repeat. Only blocks that were completed are written. docs/compare.md says what
    is converted and what has no counterpart. Exit code: 0 written, 2 not.
    """
    from loadgen.cli.console import open_console
    from loadgen.export.files import export_run
    from loadgen.runs.folder import RunFolder

    folder = RunFolder.find(runs_dir or default_runs_dir(), run)
    where = output.resolve() if output else folder.path / f"export-{form.value}"
    told = export_run(folder.load(), form.value, where, detailed=detailed)
    console = open_console()
    for line in told.notes:
        console.print(line, style="yellow", soft_wrap=True, highlight=False)
    console.print(f"{len(told.files)} files in {where}", soft_wrap=True, highlight=False)
