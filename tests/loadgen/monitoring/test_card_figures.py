"""Each GPU's figures over a block, against readings of GPUs whose rates are known."""

from __future__ import annotations

import pytest

from loadgen.monitoring.card_figures import CardFigures
from loadgen.monitoring.engine_figures import EngineFigures, figures, tally
from loadgen.monitoring.engine_page import Reading
from loadgen.monitoring.engine_samples import BlockSamples
from tests.loadgen.monitoring.test_engine_figures import BLOCK, END, START

SECONDS = END - START


def reading(gpu: int, at: float, *, own: bool) -> Reading:
    """Of GPU n: 100 + n W, 1000 + n MHz, n GB/s over NVLink, half that back, power-capped in the first half."""
    since, middle = at - START, START + SECONDS / 2
    row = {
        "joules": 5000 + (100 + gpu) * since,
        "sm_hz": (1000 + gpu) * 1e6,
        "peak": 50.0 + gpu,
        "nvlink_tx": 1e12 + gpu * 1e9 * since,
        "nvlink_rx": gpu * 0.5e9 * (since + 60),
        "pcie_tx": 2e6,
        "pcie_rx": 4e6,
        "held_power_cap": float(at < middle),
        "held_hardware_thermal": 0.0,
    }
    row |= {"on": 1.0, "own": 40.0 + gpu} if own else {}
    return {f"gpu_{name}:{gpu}": value for name, value in row.items()}


def readings(*gpus: int, own: tuple[int, ...]) -> BlockSamples:
    moments = [START - 1 + n / 4 for n in range(round(4 * (SECONDS + 2)) + 1)]
    rows = [{k: v for gpu in gpus for k, v in reading(gpu, at, own=gpu in own).items()} for at in moments]
    return BlockSamples("b", list(zip(moments, rows, strict=True)))


def told(samples: BlockSamples) -> EngineFigures:
    found = tally(BLOCK, samples)
    assert found is not None
    return figures(found)


def check(card: CardFigures, gpu: int) -> None:
    assert (card.gpu, card.blocks, card.seconds) == (str(gpu), 1, pytest.approx(SECONDS))
    assert (card.power_watts, card.sm_megahertz) == pytest.approx((100 + gpu, 1000 + gpu))
    assert (card.memory_peak_bytes, card.engine_memory_peak_bytes) == (50 + gpu, 40 + gpu)
    sent, received = card.nvlink_transmit_bytes, card.nvlink_receive_bytes
    assert (sent, received) == pytest.approx((gpu * 1e9 * SECONDS, gpu * 0.5e9 * SECONDS), rel=1e-3)
    assert card.nvlink_bytes_per_second == pytest.approx((gpu * 1e9, gpu * 0.5e9), rel=1e-3)
    assert (card.pcie_transmit_bytes_per_second, card.pcie_receive_bytes_per_second) == pytest.approx((2e6, 4e6))
    assert card.held_down is not None and card.held_down.keys() == {"power_cap"}
    assert card.held_down["power_cap"] == pytest.approx(0.5, abs=0.26 / SECONDS)


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_each_gpu_of_an_engine(count: int) -> None:
    """The engine is on the last GPUs of a machine with two more."""
    own = tuple(range(2, count + 2))
    found = told(readings(*range(count + 2), own=own))
    assert found.gpu_scope == "engine" and [card.gpu for card in found.cards] == [str(gpu) for gpu in own]
    for gpu, card in zip(own, found.cards, strict=True):
        check(card, gpu)
    assert found.gpu_power_watts == pytest.approx(sum(100 + gpu for gpu in own))


def test_of_an_engine_that_nobody_knows_all_gpus_are_shown() -> None:
    found = told(readings(9, 10, own=()))
    assert (found.gpu_scope, [card.gpu for card in found.cards]) == ("all", ["9", "10"])
    assert found.cards[0].engine_memory_peak_bytes is None


def test_what_is_not_told_is_absent() -> None:
    rows = [(at, {"gpu_on:0": 1.0, "gpu_watts:0": 300.0}) for at, _ in readings(0, own=(0,)).rows]
    (card,) = told(BlockSamples("b", rows)).cards
    assert card == CardFigures("0", pytest.approx(SECONDS), 1, None, None, 300.0, *[None] * 6)
    assert card.nvlink_bytes_per_second is None


def test_a_counter_that_began_again_tells_nothing() -> None:
    samples = readings(1, own=(1,))
    middle = len(samples.rows) // 2
    rows = [(at, {**row, "gpu_nvlink_tx:1": float(n % middle)}) for n, (at, row) in enumerate(samples.rows)]
    (card,) = told(BlockSamples("b", rows)).cards
    assert card.nvlink_transmit_bytes is None and card.nvlink_receive_bytes is not None


def test_blocks_on_other_gpus_are_not_mixed() -> None:
    """An engine that swapped GPUs between two blocks: each GPU has the figures of its own block."""
    one, two = (tally(BLOCK, readings(0, 1, own=(gpu,))) for gpu in (0, 1))
    again = tally(BLOCK, readings(0, 1, own=(1,)))
    assert one is not None and two is not None and again is not None
    cards = figures(one.plus(two).plus(again)).cards
    assert [(card.gpu, card.blocks) for card in cards] == [("0", 1), ("1", 2)]
    assert cards[0].power_watts == pytest.approx(100) and cards[1].power_watts == pytest.approx(101)
    assert cards[1].nvlink_transmit_bytes == pytest.approx(2e9 * SECONDS, rel=1e-3)
