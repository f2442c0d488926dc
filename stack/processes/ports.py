"""The stack's ports: who holds those that are taken, and others in their place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from loadgen.errors import UserError
from loadgen.machine import unused_ports
from loadgen.settings import Settings
from stack.processes import strays
from stack.processes.programs import Program

Taken = tuple[Program, str, int]
"""A program, the variable that changes its port, and the port."""


def taken_ports(stack: Sequence[Program]) -> list[Taken]:
    """The ports of a stack that someone holds."""
    return [
        (program, variable, port)
        for program in stack
        for variable, port in program.ports
        if not strays.port_is_free(port)
    ]


def check_ports(stack: Sequence[Program], state: Path | None = None) -> None:
    """Raise UserError naming every port of the stack that is taken, by whom, and the variable that changes it.

    What an earlier stack with this folder of working state left behind does not count: it is ended before the start.
    """
    lines = []
    own = {process.pid for process in strays.ours(state)} if state else set()
    for program, variable, port in taken_ports(stack):
        holder = strays.port_holder(port)
        if holder is None or holder.pid not in own:
            who = f"{port} for {program.name}: held by {strays.name_of(holder)}"
            lines.append(f"  {who}; end that, or set {variable} to a free port in .env")
    if lines:
        raise UserError("\n".join(["these ports are in use:", *lines]))


def free_ports(settings: Settings, stack: Sequence[Program]) -> dict[str, int]:
    """A free port, by its variable, for each of the stack's that is taken; those of own commands stay theirs."""
    own = {engine.port_variable for engine in settings.own_engines}
    used = set(settings.ports().values())
    moved: dict[str, int] = {}
    for _, variable, port in taken_ports(stack):
        if variable in own:
            continue
        moved[variable] = _free_port(port, used)
        used.add(moved[variable])
    return moved


def _free_port(port: int, used: set[int]) -> int:
    """A free port near another one, else any. Below 32768 no outgoing connection takes it meanwhile."""
    near = (each for each in range(port + 1, min(port + 200, 32768)) if each not in used)
    found = next((each for each in near if strays.port_is_free(each)), None)
    if found is not None:
        return found
    return next(each for each in unused_ports(100) if each not in used)


def with_ports(settings: Settings, moved: dict[str, int]) -> Settings:
    """The settings with other ports, given by variable."""
    fields = {field.alias: name for name, field in Settings.model_fields.items()}
    return settings.model_copy(update={fields[variable]: port for variable, port in moved.items()})
