import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.batching import BatchingModel, Sequence, Step, step_ns
from simulator.config import BatchingTiming
from tests.simulator.capacity import capacity, md1_wait_s, request_work_ns, service_s, slots

S = 1_000_000_000


def play(
    cfg: BatchingTiming, arrivals: list[tuple[int, int, int]], *, late: int = 0
) -> tuple[list[Step], dict[int, list[int]], BatchingModel]:
    """Run arrivals (time, prompt, output) to the end; token times by sequence. `late`: steps made up so much later."""
    model = BatchingModel(cfg)
    todo = sorted(range(len(arrivals)), key=lambda i: (arrivals[i][0], i))
    steps: list[Step] = []
    tokens: dict[int, list[int]] = {i: [] for i in range(len(arrivals))}
    now = 0

    def admit(until: int) -> None:
        while todo and arrivals[todo[0]][0] <= until:
            i = todo.pop(0)
            at, prompt, output = arrivals[i]
            ids = [7 * (i % 3), *range(prompt - 1)] if cfg.prefix_caching else []
            model.add(Sequence(prompt, output, at, owner=i, ids=ids))

    while True:
        admit(now + late)
        step = model.step(now)
        if step is None:
            if model.policy.waiting:
                now = max(now, model.policy.waiting[0].arrived)
                continue
            if not todo:
                return steps, tokens, model
            now = arrivals[todo[0]][0]
            continue
        steps.append(step)
        for sequence in step.outputs:
            tokens[sequence.owner].append(step.end)
        assert model.policy.free_blocks >= 0
        assert model.policy.free_swap_blocks >= 0
        assert len(model.policy.running) <= cfg.max_num_seqs
        now = step.end


loads = st.lists(
    st.tuples(st.integers(0, 200_000_000), st.integers(1, 120), st.integers(1, 40)), min_size=1, max_size=25
)
engines = st.builds(
    BatchingTiming,
    base_ms=st.floats(0.1, 10),
    max_num_seqs=st.integers(1, 8),
    max_num_batched_tokens=st.integers(1, 200),
    chunked_prefill=st.booleans(),
    block_tokens=st.integers(1, 16),
    kv_blocks=st.integers(160, 400),
    policy=st.sampled_from(["vllm", "ksana"]),
    preemption=st.sampled_from(["recompute", "swap"]),
    prefix_caching=st.booleans(),
    split_fuse_tokens=st.sampled_from([0, 0, 3, 50]),
    swap_blocks=st.integers(0, 100),
)


@settings(max_examples=150, deadline=None)
@given(engines, loads)
def test_every_request_gets_all_its_tokens_and_everything_is_freed(
    cfg: BatchingTiming, load: list[tuple[int, int, int]]
) -> None:
    steps, tokens, model = play(cfg, load)
    for i, (at, _, output) in enumerate(load):
        assert len(tokens[i]) == output
        assert tokens[i] == sorted(set(tokens[i]))
        assert tokens[i][0] > at
    assert model.policy.free_blocks == cfg.kv_blocks
    assert model.policy.free_swap_blocks == cfg.swap_blocks
    assert not model.policy.running
    for before, after in itertools.pairwise(steps):
        assert after.start >= before.end
    for step in steps:
        length = step_ns(cfg, step.prefill_tokens, step.decode_sequences, step.context_tokens, step.swapped_blocks)
        assert step.end - step.start - step.plan.idle_ns == max(1, length)
        assert step.due == sorted(step.due)
        if cfg.policy == "ksana" or cfg.chunked_prefill:
            alone = cfg.policy == "ksana" and len(step.plan.chosen) == 1
            assert alone or step.prefill_tokens + step.decode_sequences <= cfg.max_num_batched_tokens
    if not model.policy.preemptions and not cfg.prefix_caching:
        assert sum(step.prefill_tokens for step in steps) == sum(prompt for _, prompt, _ in load)


@settings(max_examples=60, deadline=None)
@given(engines, loads, st.integers(0, 5_000_000))
def test_making_steps_up_late_changes_nothing(cfg: BatchingTiming, load: list[tuple[int, int, int]], late: int) -> None:
    assert play(cfg, load)[1] == play(cfg, load, late=late)[1]


def test_first_come_first_served() -> None:
    cfg = BatchingTiming(max_num_seqs=2)
    _, tokens, _ = play(cfg, [(i, 5, 10) for i in range(6)])
    firsts = [tokens[i][0] for i in range(6)]
    assert firsts == sorted(firsts)


def test_a_tight_kv_budget_preempts_the_last_admitted() -> None:
    cfg = BatchingTiming(block_tokens=4, kv_blocks=20)
    model = BatchingModel(cfg)
    sequences = [Sequence(20, 40, 0) for _ in range(3)]
    for sequence in sequences:
        model.add(sequence)
    now = 0
    while (step := model.step(now)) is not None:
        now = step.end
        assert not model.policy.swapped
    assert model.policy.preemptions > 0
    assert sequences[0].preemptions == 0
    assert sequences[2].preemptions > 0
    assert all(sequence.generated == 40 for sequence in sequences)


def test_planning_ahead_hides_planning() -> None:
    plain, planned = BatchingTiming(base_ms=5), BatchingTiming(base_ms=5, plan_ms=3)
    ahead = planned.model_copy(update={"plan_ahead": True})
    steps = [step_ns(cfg, 0, 1, 0) for cfg in (plain, planned, ahead)]
    assert [step - steps[0] for step in steps] == [0, 3_000_000, 0]
    slow = ahead.model_copy(update={"plan_ms": 9})
    assert step_ns(slow, 0, 1, 0) == 9_000_000


def test_chunked_prefill_shares_steps_with_decodes() -> None:
    load = [(0, 10, 50), (1, 1000, 2)]
    chunked, tokens, _ = play(BatchingTiming(max_num_batched_tokens=101), load)
    assert max(step.prefill_tokens for step in chunked) <= 101
    assert any(step.prefill_tokens and step.decode_sequences for step in chunked)
    whole, tokens_whole, _ = play(BatchingTiming(max_num_batched_tokens=2048, chunked_prefill=False), load)
    assert max(step.prefill_tokens for step in whole) == 1000
    # The price of a whole prefill: the other request waits for it.
    gaps = [max(b - a for a, b in itertools.pairwise(t[0])) for t in (tokens, tokens_whole)]
    assert gaps[1] > 3 * gaps[0]


def test_an_abort_frees_its_blocks() -> None:
    model = BatchingModel(BatchingTiming())
    gone, stays = Sequence(100, 50, 0), Sequence(100, 2, 0)
    model.add(gone)
    model.add(stays)
    step = model.step(0)
    assert step is not None
    gone.gone = True
    step = model.step(step.end)
    assert step is not None
    assert step.outputs == [stays]
    assert model.step(step.end) is None
    assert model.usage == 0


@pytest.mark.parametrize(
    ("cfg", "prompt", "output"),
    [
        (BatchingTiming(max_num_seqs=16), 100, 32),
        (BatchingTiming(max_num_seqs=4, base_ms=1, prefill_us_per_token=200), 300, 10),
        (BatchingTiming(max_num_seqs=64, kv_us_per_token=0.2), 20, 64),
        (BatchingTiming(max_num_seqs=256, kv_blocks=80, max_num_batched_tokens=8192), 150, 11),
    ],
)
def test_saturated_closed_loop_throughput_is_the_analytic_one(cfg: BatchingTiming, prompt: int, output: int) -> None:
    expected = capacity(cfg, prompt, output)
    batch = slots(cfg, prompt, output)
    assert batch in (cfg.max_num_seqs, 8)
    steps, tokens, model = play(cfg, [(0, prompt, output)] * (batch * 30))
    assert model.policy.preemptions == 0
    # From the end of the first batch, so that nothing but the steady state counts.
    total = sum(len(times) for times in tokens.values()) / (steps[-1].end / S)
    assert total == pytest.approx(expected.output_tokens_per_s, rel=0.002)
    assert expected.requests_per_s * output == pytest.approx(expected.output_tokens_per_s)


def test_staggered_slots_have_the_same_capacity() -> None:
    cfg = BatchingTiming(max_num_seqs=8)
    rng = random.Random(3)
    load = [(0, 60, rng.randint(1, 59)) for _ in range(8)] + [(1, 60, 30)] * 800
    steps, tokens, _ = play(cfg, load)
    edge, end = steps[300].end, steps[-300].end
    rate = sum(edge < at <= end for times in tokens.values() for at in times) / ((end - edge) / S)
    assert rate == pytest.approx(capacity(cfg, 60, 30).output_tokens_per_s, rel=0.01)


def test_one_request_alone_takes_its_service_time() -> None:
    cfg = BatchingTiming()
    _, tokens, _ = play(cfg, [(5, 200, 40)])
    assert (tokens[0][-1] - 5) / S == pytest.approx(service_s(cfg, 200, 40), rel=1e-9)
    assert service_s(cfg, 200, 40) == pytest.approx(40 * cfg.base_ms / 1e3 + request_work_ns(cfg, 200, 40) / S)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_queueing_with_one_slot_is_that_of_m_d_1(load: float) -> None:
    cfg = BatchingTiming(max_num_seqs=1)
    prompt, output = 50, 4
    rate = load / service_s(cfg, prompt, output)
    rng = random.Random(7)
    at, arrivals = 0.0, []
    for _ in range(20000):
        at += rng.expovariate(rate)
        arrivals.append((round(at * S), prompt, output))
    first_step = step_ns(cfg, prompt, 0, 0)
    _, tokens, _ = play(cfg, arrivals)
    waits = [(tokens[i][0] - first_step - arrivals[i][0]) / S for i in range(len(arrivals))]
    assert sum(waits) / len(waits) == pytest.approx(md1_wait_s(cfg, prompt, output, rate), rel=0.06)
    with pytest.raises(ValueError, match="capacity"):
        md1_wait_s(cfg, prompt, output, 1.01 * rate / load)
