import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.config import Config, Fault, FixedTiming, Jitter, StreamShape
from simulator.plan import (
    CLOSE,
    CONTENT,
    DONE,
    FAULTED,
    FINISH,
    NEVER,
    RESET,
    ROLE,
    USAGE,
    FaultPicker,
    Plan,
    Shape,
    apply_fault,
    content_due,
    fixed_plan,
    group_tokens,
    settle_shape,
)

MS = 1_000_000
SHAPE = Shape(role=True, role_lead_ns=50_000, tokens_per_event=1, usage="own")
jitters = st.builds(
    Jitter, kind=st.sampled_from(["none", "uniform", "normal", "exponential"]), scale_ms=st.floats(0, 100)
)


@given(st.integers(1, 3000), st.integers(1, 50))
def test_groups_hold_all_tokens_and_the_first_holds_one(output: int, size: int) -> None:
    groups = group_tokens(output, size)
    assert sum(groups) == output
    assert groups[0] == 1
    assert all(group == size for group in groups[1:-1])
    assert 1 <= groups[-1] <= size


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 10**15), st.integers(0, 200), st.integers(0, 50))
def test_without_jitter_each_event_is_due_with_its_last_token(
    output: int, size: int, anchor: int, ttft: int, tpot: int
) -> None:
    cfg = FixedTiming(ttft_ms=ttft, tpot_ms=tpot)
    groups = group_tokens(output, size)
    due = content_due(cfg, 3, groups, anchor, 1.0, np.random.default_rng(0))
    done = 0
    for at, tokens in zip(due, groups, strict=True):
        done += tokens
        assert at == anchor + (ttft + (done - 1) * tpot) * MS
    # So TPOT as the clients define it is exact however tokens are grouped.
    assert due[-1] - due[0] == (output - 1) * tpot * MS


@given(st.integers(1, 200), st.integers(1, 5), jitters, jitters, st.integers(0, 2**32))
def test_with_jitter_order_is_kept_and_nothing_precedes_the_request(
    output: int, size: int, ttft: Jitter, tpot: Jitter, seed: int
) -> None:
    cfg = FixedTiming(ttft_ms=5, tpot_ms=2, ttft_jitter=ttft, tpot_jitter=tpot)
    rng = np.random.default_rng(seed)
    plan = fixed_plan(cfg, SHAPE, "vllm", 3, output, 1000, 1.0, rng)
    assert plan.due == sorted(plan.due)
    assert plan.due[0] >= 1000
    assert plan.kind[0] == ROLE
    assert len(plan.due) == len(plan.kind) == len(plan.tokens)
    assert sum(plan.tokens) == output


def test_jitter_has_its_stated_spread() -> None:
    rng = np.random.default_rng(1)
    for kind, mean, deviation in (("uniform", 0, 2 / 3**0.5), ("normal", 0, 2), ("exponential", 2, 2)):
        cfg = FixedTiming(ttft_ms=1000, ttft_jitter=Jitter(kind=kind, scale_ms=2))
        ttft = np.array([content_due(cfg, 0, [1], 0, 1.0, rng)[0] for _ in range(4000)]) / MS
        assert ttft.mean() == pytest.approx(1000 + mean, abs=0.2)
        assert ttft.std() == pytest.approx(deviation, rel=0.1)


def test_prompt_and_drift_lengthen_the_times() -> None:
    cfg = FixedTiming(ttft_ms=10, tpot_ms=4, prefill_us_per_token=100)
    due = content_due(cfg, 50, [1, 1], 0, 1.5, np.random.default_rng(0))
    assert due == [round(15 * 1.5 * MS), round(15 * 1.5 * MS) + 6 * MS]


def test_tokens_per_event_grow_with_the_load() -> None:
    cfg = StreamShape(tokens_per_event=2, tokens_per_event_per_stream=0.5)
    sizes = [
        settle_shape(cfg, "vllm", chat=True, usage_asked=True, others=n, rng=random.Random(0)).tokens_per_event
        for n in (0, 1, 2, 10)
    ]
    assert sizes == [2, 2, 3, 7]


@pytest.mark.parametrize(
    ("personality", "usage", "kinds"),
    [
        ("vllm", "own", [ROLE, CONTENT, CONTENT | FINISH, USAGE | DONE]),
        ("vllm", "none", [ROLE, CONTENT, CONTENT | FINISH, DONE]),
        ("vllm", "last", [ROLE, CONTENT, CONTENT | FINISH | USAGE, DONE]),
        ("ksana", "finish", [ROLE, CONTENT, CONTENT, FINISH | USAGE | DONE]),
        ("ksana", "none", [ROLE, CONTENT, CONTENT, FINISH | DONE]),
    ],
)
def test_where_finish_and_usage_sit(personality: str, usage: str, kinds: list[int]) -> None:
    shape = Shape(role=True, role_lead_ns=0, tokens_per_event=1, usage=usage)
    plan = fixed_plan(FixedTiming(), shape, personality, 1, 2, 0, 1.0, np.random.default_rng(0))
    assert plan.kind == kinds


def ten() -> Plan:
    return Plan([i * MS for i in range(10)], [CONTENT] * 9 + [CONTENT | FINISH], [1] * 10)


def test_a_spike_delays_one_event_and_those_due_meanwhile() -> None:
    plan = apply_fault(ten(), Fault(kind="spike", after=3, ms=2.5))
    assert [at / MS for at in plan.due] == [0, 1, 2, 5.5, 5.5, 5.5, 6, 7, 8, 9]
    assert [bool(kind & FAULTED) for kind in plan.kind] == [False] * 3 + [True] * 3 + [False] * 4


def test_a_stall_moves_all_that_follows_or_never_ends() -> None:
    plan = apply_fault(ten(), Fault(kind="stall", after=3, ms=20))
    assert [at / MS for at in plan.due] == [0, 1, 2, *range(23, 30)]
    assert apply_fault(ten(), Fault(kind="stall", after=3)).due[3:] == [NEVER]


@pytest.mark.parametrize(("kind", "action"), [("reset", RESET), ("truncate", CLOSE)])
def test_a_fault_that_ends_a_stream(kind: str, action: int) -> None:
    plan = apply_fault(ten(), Fault(kind=kind, after=3))
    assert plan.kind == [CONTENT] * 3 + [action]


def test_a_fault_may_hit_those_that_come_to_a_full_engine() -> None:
    picker = FaultPicker(Config(faults=[{"kind": "http", "status": 429, "over": 8}]))
    assert [picker.pick(1, 0, n) is not None for n in (0, 7, 8, 9)] == [False, False, True, True]


def test_faults_are_picked_by_number_time_and_seeded_share() -> None:
    cfg = Config(faults=[{"kind": "reset", "every": 3, "from_s": 1, "until_s": 2}, {"kind": "stall", "share": 0.25}])
    picks = [FaultPicker(cfg).pick(n, 1.5) for n in (1, 2, 3)]
    assert picks[2] is cfg.faults[0]
    assert all(pick is not cfg.faults[0] for pick in picks[:2])
    early, late = FaultPicker(cfg), FaultPicker(cfg)
    assert [early.pick(n, 0.5) for n in range(99)] == [late.pick(n, 2.5) for n in range(99)]
    picker = FaultPicker(cfg)
    share = sum(picker.pick(n, 0) is not None for n in range(4000)) / 4000
    assert share == pytest.approx(0.25, abs=0.03)
