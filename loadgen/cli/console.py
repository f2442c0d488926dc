"""The terminal that commands print to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

MIN_WIDTH = 76
FILE_WIDTH = 140
"""Holds every column of every table."""


def open_console(*, stderr: bool = False) -> Console:
    """The terminal. One narrower than our tables wraps their lines itself, and a file has room: nothing is ever cut."""
    from loadgen.presentation.plain_console import PlainConsole

    console = PlainConsole(stderr=stderr)
    if console.width >= MIN_WIDTH:
        return console
    return PlainConsole(stderr=stderr, width=MIN_WIDTH if console.is_terminal else FILE_WIDTH)
