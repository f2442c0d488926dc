"""A gate and its options, the same for `compare`, `bench` and `report`. Light: every command loads this."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loadgen.errors import UserError
from loadgen.files import check_writable, write_result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from loadgen.gate.decide import Decision
    from loadgen.runs.folder import RunFolder
    from loadgen.scenario.threshold import Threshold


@dataclasses.dataclass
class Gate:
    """What to hold a run against, and where to tell it. Made before a run, so that mistakes show at once."""

    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="THRESHOLD",
            help="Fail where this is so, such as 'ttft.p95 > +5%' or 'errors > 1%' (repeatable; over the scenario's "
            "own).",
        ),
    ] = None
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the thresholds as JUnit XML.")] = None
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the thresholds as GitHub-flavoured Markdown.")
    ] = None
    github_summary: Annotated[
        bool,
        typer.Option("--github-summary", help="Append that Markdown to the file that GITHUB_STEP_SUMMARY names."),
    ] = False

    def __post_init__(self) -> None:
        """Read thresholds and check the files. Raises UserError."""
        from loadgen.gate.cases import read_thresholds

        self._given: list[Threshold] = read_thresholds(self.fail_if or ())
        summary = os.environ.get("GITHUB_STEP_SUMMARY") if self.github_summary else None
        if self.github_summary and not summary:
            raise UserError("--github-summary: GITHUB_STEP_SUMMARY is not set; use --markdown FILE outside GitHub.")
        self._summary = Path(summary) if summary else None
        for file in (self.junit, self.markdown, self._summary):
            check_writable(file)

    def thresholds(self, scenario: Sequence[str]) -> list[Threshold]:
        """Those of the command line, else the scenario's."""
        from loadgen.gate.cases import read_thresholds

        found = self._given or read_thresholds(scenario)
        if not found and (self.junit or self.markdown or self._summary):
            raise UserError("There is no threshold to write about: give --fail-if, or fail_if: in the scenario.")
        return found

    def check_engines(self, engines: int) -> None:
        """Raise UserError where a difference is asked for and there is nothing to compare with."""
        relative = next((threshold for threshold in self._given if threshold.difference), None)
        if relative is not None and engines < 2:
            raise UserError(
                f"--fail-if '{relative}' is about a difference, and there is one engine: compare its run with another "
                "(`bakeoff compare`), or give a limit, such as 'ttft.p95 > 800ms'."
            )

    def tell(
        self, decisions: Sequence[Decision], *, title: str, started_at: float, console: Console, language: str = "en"
    ) -> int:
        """Print the decisions, and write the files, in English. Returns the exit code. Raises UserError."""
        from loadgen.gate.decide import exit_code
        from loadgen.gate.junit import junit_xml
        from loadgen.gate.summary import gate_markdown
        from loadgen.gate.terminal import show_decisions
        from loadgen.presentation.language import language_of

        if not decisions and not (self.junit or self.markdown or self._summary):
            return 0
        show_decisions(console, decisions, language_of(language))
        if self.junit is not None:
            write_result(self.junit, junit_xml(decisions, name=title, started_at=started_at))
        for file, append in ((self.markdown, False), (self._summary, True)):
            if file is not None:
                write_result(file, gate_markdown(decisions, title=title), append=append)
        return exit_code(decisions)

    def judge_run(self, folder: RunFolder, console: Console, language: str = "en") -> int:
        """Hold one run against the thresholds, engine against engine. Returns the exit code."""
        from loadgen.gate.cases import run_cases
        from loadgen.gate.decide import decide

        run = folder.load()
        thresholds = self.thresholds(scenario_thresholds(run.manifest.scenario))
        if not thresholds:
            return 0
        self.check_engines(len(run.manifest.engines))
        decisions = decide(run_cases(thresholds, run))
        title = f"{run.manifest.scenario.get('name') or 'run'} ({run.manifest.run_id})"
        began = run.manifest.started_at
        return self.tell(decisions, title=title, started_at=began, console=console, language=language)


def scenario_thresholds(scenario: dict[str, object]) -> list[str]:
    """The thresholds that a manifest's scenario has."""
    found = scenario.get("fail_if")
    return [str(text) for text in found] if isinstance(found, list) else []
