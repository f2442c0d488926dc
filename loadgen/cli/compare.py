"""`bakeoff compare`: the command. Light at the top: every command loads this."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli.console import open_console
from loadgen.cli.options import Language, LanguageChoice, RunsDir, default_runs_dir, with_groups
from loadgen.errors import UserError
from loadgen.gate.options import Gate, scenario_thresholds


@with_groups
def compare(
    *,
    run_a: Annotated[str, typer.Argument(metavar="RUN_A", help="The run to compare with: its id or folder.")],
    run_b: Annotated[str, typer.Argument(metavar="RUN_B", help="The run that is judged.")],
    engine: Annotated[str | None, typer.Option(metavar="NAME", help="Engine of both (default: that of both).")] = None,
    a: Annotated[str | None, typer.Option("--a", metavar="NAME", help="Engine of RUN_A.")] = None,
    b: Annotated[str | None, typer.Option("--b", metavar="NAME", help="Engine of RUN_B.")] = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WHAT",
            help="Compare although this is not the same (repeatable): model, context-length, prompts, api, "
            "shared-prefix, arrival.",
        ),
    ] = None,
    gate: Gate,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to write it (default: RUN_B/compare-<id of RUN_A>).")
    ] = None,
    lang: Language = LanguageChoice.en,
    runs_dir: RunsDir = None,
) -> None:
    """Compare two runs cell by cell.

    One engine in two versions or on two machines, or two engines. Writes compare.html, compare.md and compare.json.
    Exit code: 0 compared, and all thresholds hold, 2 they cannot be compared, 3 a threshold failed, 4 none failed, but
    one is undecided.
    """
    from loadgen.compare.comparison import compare_runs
    from loadgen.compare.page import write_comparison
    from loadgen.compare.sides import load_sides
    from loadgen.compare.terminal import show_comparison
    from loadgen.presentation.language import language_of
    from loadgen.runs.folder import RunFolder

    if engine is not None and (a is not None or b is not None):
        raise UserError("Give either --engine for both runs, or --a and --b.")
    folder_a, folder_b = (RunFolder.find(runs_dir or default_runs_dir(), name) for name in (run_a, run_b))
    side_a, side_b = load_sides(folder_a, folder_b, a or engine, b or engine)
    thresholds = gate.thresholds(scenario_thresholds(side_b.manifest.scenario))
    comparison = compare_runs(side_a, side_b, accepted=accept or (), thresholds=thresholds)
    terminal = open_console()
    told = language_of(lang.value)
    show_comparison(terminal, comparison, told)
    where = output.resolve() if output else folder_b.path / f"compare-{side_a.manifest.run_id}"
    page = write_comparison(comparison, where, lang.value)
    title = f"{side_b.label} ({side_b.manifest.run_id}) against {side_a.label} ({side_a.manifest.run_id})"
    began = side_b.manifest.started_at
    code = gate.tell(comparison.decisions, title=title, started_at=began, console=terminal, language=lang.value)
    terminal.print(told("Comparison: {page}", page=page), soft_wrap=True, highlight=False)
    raise typer.Exit(code)
