"""A terminal that shows what engines, files and users said as text only: nothing in it moves the cursor or colours."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from loadgen.message import printable


class PlainConsole(Console):
    """rich's, without markup and emoji codes in texts, and with no control characters but its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        # The one place that all text passes, where rich's own control codes are still apart from it.
        return super()._render_buffer(
            segment if segment.control else Segment(printable(segment.text), segment.style) for segment in buffer
        )
