"""The line that is rewritten in a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from loadgen.bench import progress as bench_progress
from loadgen.bench.progress import BenchProgress
from loadgen.distributed.status import BlockStatus
from loadgen.presentation import progress
from loadgen.presentation.progress import WaitingLine
from loadgen.scenario.model import Block, Cell


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


def test_what_was_waited_for_before_the_first_requests_is_no_pace(monkeypatch):
    """The first of 32 blocks of 40 requests, five a second after seven seconds of warm-up."""

    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            return cls.now

    monkeypatch.setattr(bench_progress, "time", Clock)
    monkeypatch.setattr(progress, "time", Clock)
    out = io.StringIO()
    shown = BenchProgress(Console(file=out, width=120))
    block = Block("a", Cell(64, 8, 1), 1)
    said = []
    for at, measured in ((0.0, None), (7.0, 0), (7.2, 1), (8.0, 5), (11.0, 20)):
        Clock.now = at + 100
        status = BlockStatus(wanted=40, warmed_up=measured is not None, measured=measured or 0)
        shown.block(block, 1, 32, status)
        said.append(shown._left(1, 32, status))
    assert said == ["", "", "", ", about 8 min left", ", about 8 min left"]
