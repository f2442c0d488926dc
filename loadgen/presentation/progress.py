"""What the terminal shows while `run` and `bench` are at work: one line that is rewritten."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

PLAIN_INTERVAL_S = 10.0
"""Where output is no terminal, a progress line is printed this often."""
WORTH_TELLING_S = 3.0


class StatusLine:
    """One line that is rewritten in a terminal, and printed now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, transient=True, refresh_per_second=4) if console.is_terminal else None
        self._printed_at = 0.0
        self._printed = ""

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def line(self, text: str) -> None:
        """Show how things stand."""
        if self._live is not None:
            self._live.update(WaitingLine(text))
        elif time.monotonic() - self._printed_at >= PLAIN_INTERVAL_S and text != self._printed:
            self._printed_at, self._printed = time.monotonic(), text
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def engine(self, name: str, text: str) -> None:
        """Show how things stand with an engine, whose name the text may begin with."""
        self.line(f"{name}: {text.removeprefix(f'{name}: ')}")

    def tell(self, text: str, style: str | None = None) -> None:
        """Print something that stays."""
        self._console.print(Text(text, style=style or ""), highlight=False, soft_wrap=True)


class WaitingLine:
    """A line that tells how long it has been there, once that is long: something is waited for."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._since = time.monotonic()

    def __rich__(self) -> Text:
        waited = time.monotonic() - self._since
        more = f"  {waited:.0f} s" if waited >= WORTH_TELLING_S else ""
        return Text(self._text + more, no_wrap=True, overflow="ellipsis")
