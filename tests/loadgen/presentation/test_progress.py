"""The line that is rewritten in a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from loadgen.bench import progress as bench_progress
from loadgen.bench.progress import BenchProgress
from loadgen.distributed.status import BlockStatus
from loadgen.presentation import progress
from loadgen.presentation.progress import WaitingLine
from loadgen.runs.manifest import BlockFacts
from loadgen.scenario.model import Block, Cell


class Clock:
    now = 100.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands, for all that shows progress."""
    monkeypatch.setattr(Clock, "now", 100.0)
    monkeypatch.setattr(bench_progress, "time", Clock)
    monkeypatch.setattr(progress, "time", Clock)
    return Clock


def test_a_line_that_stays_tells_for_how_long(clock):
    line = WaitingLine("a: asking")

    def shown():
        out = io.StringIO()
        Console(file=out, width=80).print(line)
        return out.getvalue().rstrip()

    assert shown() == "a: asking"
    clock.now += 12
    assert shown() == "a: asking  12 s"


def test_what_was_waited_for_before_the_first_requests_is_no_pace(clock):
    """The first of 32 blocks of 40 requests, five a second after seven seconds of warm-up."""

    out = io.StringIO()
    shown = BenchProgress(Console(file=out, width=120))
    block = Block("a", Cell(64, 8, 1), 1)
    said = []
    for at, measured in ((0.0, None), (7.0, 0), (7.2, 1), (8.0, 5), (11.0, 20)):
        clock.now = at + 100
        status = BlockStatus(wanted=40, warmed_up=measured is not None, measured=measured or 0)
        shown.block(block, 1, 32, status)
        said.append(shown._left(1, 32, status))
    assert said == ["", "", "", ", about 8 min left", ", about 8 min left"]


def test_what_lies_between_two_blocks_counts_in_the_time_that_is_left(clock):
    """Two blocks of 10 s with a start of 70 s between them, and eight to come."""

    out = io.StringIO()
    shown = BenchProgress(Console(file=out, width=120))
    for number, begins in ((1, 0.0), (2, 80.0)):
        block = Block("a", Cell(64, 8, 1), number)
        clock.now = begins
        shown.block(block, number, 10, BlockStatus(wanted=40, warmed_up=True, measured=0))
        clock.now = begins + 5
        status = BlockStatus(wanted=40, warmed_up=True, measured=20)
        shown.block(block, number, 10, status)
        left = shown._left(number, 10, status)
        clock.now = begins + 10
        facts = BlockFacts(
            id=block.id,
            record_id=block.id,
            engine="a",
            cell=block.cell.id,
            repeat=number,
            users=1,
            warmup_requests=1,
            measured_requests=40,
            status="complete",
            started_at=begins,
            ended_at=begins + 10,
        )
        shown.block_ended(block, number, 10, facts)
    assert left == ", about 11 min left"
