"""What a report says of blocks that others on the machine disturbed."""

from __future__ import annotations

import dataclasses

import pytest

from loadgen.contention.reading import Contention, Side
from loadgen.contention.rule import judge
from loadgen.report import report_data
from loadgen.report.headline import headline, notices
from loadgen.report.shared_machine import shared_fact, shared_notice
from tests.loadgen.report.synthetic_run import SyntheticRun
from tests.loadgen.report.test_following import block


def reading(share: float) -> Contention:
    return Contention(10.0, findings=judge(10.0, Side(1, (0,), others_share=share), None))


def blocks(shares):
    return [
        dataclasses.replace(
            block(engine, f"c{place}", place, place + 1), contention=None if share is None else reading(share)
        )
        for engine, mine in shares.items()
        for place, share in enumerate(mine)
    ]


@pytest.mark.parametrize(
    ("shares", "fact", "notice"),
    [
        ({"a": [0.0, 0.05], "b": [0.01]}, None, None),
        ({"a": [None], "b": [None]}, None, None),
        (
            {"a": [0.3, 0.41], "b": [0.0, 0.2]},
            "The machine was shared: others took up to 41% of the engine's cores in 3 of 4 blocks "
            "(disturbed blocks: a 2, b 1).",
            "The machine was shared: others took up to 41% of the engine's cores in 3 of 4 blocks.",
        ),
        (
            {"a": [0.3] + [0.0] * 10, "b": [0.0] * 10},
            None,
            "The machine was shared: others took 30% of the engine's cores in 1 of 21 blocks.",
        ),
        (
            {"a": [0.3, 0.0]},
            "The machine was shared: others took 30% of the engine's cores in 1 of 2 blocks.",
            "The machine was shared: others took 30% of the engine's cores in 1 of 2 blocks.",
        ),
    ],
)
def test_the_gravest_is_told_with_its_blocks(shares, fact, notice):
    found = blocks(shares)
    assert shared_fact(found) == ([] if fact is None else [fact])
    assert shared_notice(found) == ([] if notice is None else [notice])


def test_a_block_that_is_in_no_figure_is_not_counted():
    (one,) = blocks({"a": [0.5]})
    assert shared_fact([dataclasses.replace(one, used=False)]) == []


def test_headline_and_notices_of_a_race_say_it(tmp_path):
    run = SyntheticRun(prompts=(64,), concurrencies=(1,), requests=20).add_all()
    for each in run.blocks:
        each.facts.contention = reading(0.41)
    data = report_data(run.write(tmp_path), prometheus_url=None)
    assert any("The machine was shared" in fact for fact in headline(data).facts)
    assert any("others took up to 41% of the engine's cores" in notice.text for notice in notices(data))
