"""`bakeoff scenarios`."""

from __future__ import annotations

import typer


def scenarios() -> None:
    """List the scenarios that come with Bakeoff.

    Each with the question that it answers.
    """
    from loadgen.scenario.file import load_scenario, shipped_scenarios

    for name in shipped_scenarios():
        typer.echo(f"{name:16} {load_scenario(name).question}")
