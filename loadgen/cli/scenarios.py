"""`bakeoff scenarios`."""

from __future__ import annotations

import typer


def scenarios() -> None:
    """List the scenarios that come with Bakeoff.

    Each with the question that it answers.
    """
    from loadgen.scenario.file import load_scenario, shipped_scenarios

    names = shipped_scenarios()
    width = max(map(len, names))
    for name in names:
        typer.echo(f"{name:{width}}  {load_scenario(name).question}")
