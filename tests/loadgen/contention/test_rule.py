"""The rule: what marks a block, and what voids it."""

from __future__ import annotations

import pytest

from loadgen.contention.reading import Contention, Gpu, Side
from loadgen.contention.rule import judge, over_blocks, reasons, words


def side(**known) -> Side:
    return Side(processes=1, cores=(0,), **known)


@pytest.mark.parametrize(
    ("kind", "known", "voids"),
    [
        ("others", {"others_share": 0.9}, False),
        ("kept", {"kept_share": 0.1}, False),
        ("kept", {"kept_share": 0.3}, False),
        ("steal", {"steal_share": 0.06}, False),
        ("steal", {"steal_share": 0.3}, False),
        ("throttled", {"throttled_share": 0.5}, False),
        ("stopped", {"stopped_s": 0.1}, False),
        ("stopped", {"stopped_s": 1.0}, True),
        ("memory", {"pressure": {"memory some": 0.06}}, False),
        ("io", {"pressure": {"io full": 0.3}}, False),
        ("heat", {"heats": 1}, False),
    ],
)
def test_what_is_beyond_is_found_on_either_side(kind, known, voids):
    for name, found in (
        ("engine", judge(10.0, side(**known), side())),
        ("client", judge(10.0, None, side(**known))),
    ):
        assert [(one.kind, one.side, one.voids) for one in found] == [(kind, name, voids)]
        assert "{" not in words(found[0])


def test_a_quiet_or_an_unknown_machine_is_silent():
    quiet = side(others_share=0.05, kept_share=0.01, steal_share=0.01, throttled_share=0.0, heats=0)
    assert judge(10.0, quiet, quiet) == judge(10.0, None, None) == ()


def test_a_gpu_at_its_power_limit_is_usual_and_a_hot_or_a_shared_one_is_not():
    usual = Gpu("0", held_down={"power_cap": 1.0, "idle": 0.5}, other_processes=0)
    assert judge(10.0, None, None, [usual]) == ()
    found = judge(10.0, None, None, [Gpu("0", held_down={"software_thermal": 0.4}, other_processes=1)])
    assert [one.kind for one in found] == ["gpu_clocks", "gpu_shared"]


def test_over_many_blocks_the_greatest_is_told_and_how_many():
    def block(share: float) -> Contention:
        return Contention(10.0, findings=judge(10.0, side(others_share=share), None))

    ((finding, count),) = over_blocks([block(0.2), block(0.41), block(0.01)])
    assert (words(finding, upto=True), count) == ("others took up to 41% of the engine's cores", 2)


def test_who_it_was_is_told():
    found = Contention(1.0, busiest=(("cc1", 0.8), ("sh", 0.01)), findings=judge(1.0, side(others_share=0.4), None))
    assert reasons(found) == ["others took 40% of the engine's cores", "busiest, in cores: cc1 0.8"]
