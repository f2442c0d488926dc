"""When a running block is given up: an engine that does not answer once is busy, twice in a row it is gone."""

from __future__ import annotations

from loadgen.bench.block_watch import BlockFailed, BlockWatch
from loadgen.distributed.status import BlockStatus
from loadgen.scenario.model import Block, Cell, Scenario
from tests.loadgen.bench.races import SCENARIO
from tests.loadgen.bench.test_campaign import FakeHost


class Answering(FakeHost):
    """An engine that answers its health check as it is told."""

    def __init__(self, *answers: bool) -> None:
        super().__init__()
        self.answers = list(answers)

    def is_up(self, name: str) -> bool:
        return self.answers.pop(0)


def judged(*answers: bool) -> list[BlockFailed | None]:
    """What is said of a block whose requests fail, look by look."""
    watch = BlockWatch(Scenario.model_validate(SCENARIO), Block("a", Cell(32, 8, 2), 1), Answering(*answers))
    status = BlockStatus(block="b", state="running", failures_in_row=1)
    return [watch.judge(status) for _ in answers]


def test_one_answer_that_is_missed_ends_no_block():
    assert judged(False, True, False, True) == [None] * 4


def test_an_engine_that_misses_two_is_gone():
    first, second = judged(False, False)
    assert first is None
    assert second is not None and "a died in mid-block" in str(second) and second.retry
