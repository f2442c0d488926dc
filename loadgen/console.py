"""The terminal that commands print to."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

MIN_WIDTH = 76


def open_console(*, stderr: bool = False) -> Console:
    """The terminal. One narrower than our tables wraps their lines itself: figures are never cut."""
    from rich.console import Console

    console = Console(stderr=stderr)
    return console if console.width >= MIN_WIDTH else Console(stderr=stderr, width=MIN_WIDTH)
