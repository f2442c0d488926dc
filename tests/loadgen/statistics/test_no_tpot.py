"""An engine whose streams carry no TPOT: nobody wins in TPOT, and all else is judged as ever."""

import dataclasses

import numpy as np
import pytest

from loadgen.statistics.compare import compare
from loadgen.statistics.metrics import BlockSample, CellSample, Total
from loadgen.statistics.result import Settings
from loadgen.statistics.words import verdict_words

WHY = "events arrive in clumps of 8"


def sample(repeat: int, tpot: float, started: float) -> BlockSample:
    chance = np.random.default_rng(repeat)
    return BlockSample(
        repeat,
        started,
        requests={
            source: mean * chance.normal(1, 0.001, 40)
            for source, mean in {"ttft_ms": 50 * tpot, "tpot_ms": tpot, "e2e_ms": 90 * tpot}.items()
        },
        totals={"output_tokens": Total(1000 / tpot, 1.0), "requests": Total(10 / tpot, 1.0)},
    )


@pytest.mark.parametrize("clumped", ["a", "b", "ab", "one block"])
def test_no_winner_in_tpot(clumped):
    sides = {
        side: [sample(repeat, tpot, 10.0 * repeat + place) for repeat in range(4)]
        for place, (side, tpot) in enumerate({"a": 1.0, "b": 1.3}.items())
    }
    for side, blocks in sides.items():
        for place, block in enumerate(blocks):
            if side in clumped[:2] or (clumped == "one block" and (side, place) == ("b", 2)):
                without = {source: values for source, values in block.requests.items() if source != "tpot_ms"}
                blocks[place] = dataclasses.replace(block, requests=without, no_tpot=WHY)
    found = compare("a", "b", [CellSample("cell", sides["a"], sides["b"])], Settings())
    tpot = found.overall["tpot_ms.mean"]
    assert (tpot.verdict, tpot.reason, tpot.faster) == ("invalid", "tpot_basis", None)
    assert verdict_words(tpot, found) == "the stream of an engine does not tell it"
    assert found.overall["ttft_ms.p50"].verdict == "a"
