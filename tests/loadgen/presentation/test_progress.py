"""The line that is rewritten in a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from loadgen.presentation import progress
from loadgen.presentation.progress import WaitingLine


def test_a_line_that_stays_tells_for_how_long(monkeypatch):
    class Clock:
        now = 100.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    monkeypatch.setattr(progress, "time", Clock)
    line = WaitingLine("a: asking")

    def shown():
        out = io.StringIO()
        Console(file=out, width=80).print(line)
        return out.getvalue().rstrip()

    assert shown() == "a: asking"
    Clock.now += 12
    assert shown() == "a: asking  12 s"
