"""What a report says one more repeat takes."""

from __future__ import annotations

import pytest

from loadgen.report.data import BlockView
from loadgen.report.headline import repeat_seconds


def block(engine: str, cell: str, start: float, end: float | None, status: str = "complete") -> BlockView:
    return BlockView(
        record_id=f"{engine}.{cell}", engine=engine, cell=cell, repeat=1, attempt=1, users=1, status=status,
        reason=None, used=True, records=1, measured=1, wanted=1, errors=0, started_at=start, ended_at=end, client=None,
    )  # fmt: skip


def test_a_repeat_takes_its_blocks_and_what_lies_between_them():
    # An engine's start of 60 s between the two turns; nothing between the two blocks of a turn.
    blocks = [
        block("a", "x", 0, 10), block("a", "y", 10, 30), block("b", "x", 90, 100), block("b", "y", 100, 120),
    ]  # fmt: skip
    assert repeat_seconds(blocks, ("a", "b")) == pytest.approx(60 + 4 * 20)
    assert repeat_seconds(blocks[:1], ("a", "b")) == 10
    assert repeat_seconds([], ("a", "b")) is None


def test_the_night_before_a_run_went_on_is_no_part_of_it():
    blocks = [block("a", "x", 0, 10), block("b", "x", 86_400, 86_410)]
    assert repeat_seconds(blocks, ("a", "b")) == 20
    assert repeat_seconds([block("a", "x", 0, 10), block("b", "x", 10, None, "interrupted")], ("a", "b")) == 10
