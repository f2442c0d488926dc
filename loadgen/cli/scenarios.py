"""`bakeoff scenarios`."""

from __future__ import annotations

from typing import Annotated

import typer

from loadgen.errors import UserError


def scenarios(
    group: Annotated[
        str,
        typer.Option(metavar="NAME", help="Those of a group: `internals`, experiments that show how engines schedule."),
    ] = "",
) -> None:
    """List the scenarios that come with Bakeoff.

    Each with the question that it answers; an experiment with its number.
    """
    from loadgen.scenario.file import GROUPS, load_scenario, shipped_scenarios

    if group and group not in GROUPS:
        raise UserError(f"There is no group {group!r} of scenarios. Groups: {', '.join(GROUPS)}.")
    names = shipped_scenarios(group)
    width = max(map(len, names))
    for name in names:
        scenario = load_scenario(name)
        number = f"{scenario.experiment.number:4}  " if scenario.experiment is not None else ""
        typer.echo(f"{name:{width}}  {number}{scenario.question}")
