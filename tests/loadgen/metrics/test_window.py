"""The window, against a discrete-event simulation of closed-loop users that knows the future."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.metrics.window import CutRule, Window
from loadgen.record import ErrorKind, RequestRecord
from tests.loadgen.records import record


@dataclasses.dataclass
class Sent:
    """What the simulation knows of one request, in wall time."""

    user: int
    number: int
    send: int
    done: int
    failed: bool


def simulate(seed: int, users: int, warmup: int, measured: int) -> list[Sent]:
    """Closed-loop users with random service times, some very slow, some failing; in order of completion.

    Every user goes on until it has finished a request that was sent after all measured ones.
    """
    rng = random.Random(seed)
    sequences: list[list[Sent]] = [[] for _ in range(users)]

    def go_on(user: int) -> Sent:
        own = sequences[user]
        send = own[-1].done + rng.randrange(1, 10**5) if own else rng.randrange(1, 10**9)
        service = int(rng.lognormvariate(18, rng.choice([0.1, 1.5]))) + 1
        own.append(Sent(user, len(own), send, send + service, rng.random() < 0.1))
        return own[-1]

    opens = max(go_on(user).done for _ in range(warmup) for user in range(users)) if warmup else 0
    ends = []
    for user in range(users):
        late = 0
        while late < measured:  # one user alone sends enough
            late += (last := go_on(user)).send >= opens
        ends.append(last.send)
    for user in range(users):
        while sequences[user][-1].send <= max(ends):
            go_on(user)
    return sorted((s for own in sequences for s in own), key=lambda s: s.done)


def as_record(sent: Sent, workers: int, **fields) -> RequestRecord:
    """As its worker records it: every worker has a clock and a user numbering of its own."""
    worker = sent.user % workers
    boot = (worker + 1) * 7 * 10**14
    return record(
        sent.send - boot, done=sent.done - boot, wall_offset_ns=boot, worker=f"w{worker}", user=sent.user // workers,
        index=sent.number, **({"error": "http"} if sent.failed else {}), **fields,
    )  # fmt: skip


def omniscient(sent: list[Sent], users: int, warmup: int, measured: int) -> tuple[int, list[Sent]]:
    """(when the window opens, the measured requests), with the whole future known."""
    opens = max(s.done for s in sent if s.number == warmup - 1) if warmup else min(s.send for s in sent)
    after = [s for s in sorted(sent, key=lambda s: s.send) if s.send >= opens]
    return opens, after[:measured]


def keys(records, cut):
    return {(r.worker, r.user, r.index) for r, phase in zip(records, cut.phases, strict=True) if phase == "measure"}


blocks = st.tuples(
    st.integers(0, 2**32), st.integers(1, 8), st.integers(1, 3), st.integers(0, 3), st.integers(1, 25)
)  # seed, users, workers, warm-up requests, measured requests


@settings(deadline=None, max_examples=60)
@given(blocks, st.data())
def test_complete_means_that_no_later_knowledge_changes_the_choice(block, data):
    seed, users, workers, warmup, measured = block
    workers = min(workers, users)
    sent = simulate(seed, users, warmup, measured)
    opens, wanted = omniscient(sent, users, warmup, measured)
    wanted_keys = {(f"w{s.user % workers}", s.user // workers, s.number) for s in wanted}

    # Workers report in order, each at its own pace.
    queues = [[as_record(s, workers) for s in sent if s.user % workers == w] for w in range(workers)]
    late = data.draw(st.booleans(), label="workers report at different paces")
    rng = random.Random(seed)
    known: list[RequestRecord] = []
    completed_at = None
    while any(queues):
        ready = [queue for queue in queues if queue]
        queue = rng.choice(ready) if late else min(ready, key=lambda q: q[0].t_done + q[0].wall_offset_ns)
        known.append(queue.pop(0))
        cut = CutRule(users=users, warmup_requests=warmup, measured_requests=measured).cut(known)
        assert len(cut.phases) == len(known)
        if completed_at is not None:
            assert cut.complete, "complete must not be taken back"
        if cut.complete:
            completed_at = completed_at or len(known)
            assert keys(known, cut) == wanted_keys
            assert cut.window == Window(opens, max(s.done for s in wanted))
    assert completed_at is not None, "it must become complete"


@settings(deadline=None, max_examples=60)
@given(blocks)
def test_phases_follow_their_definitions(block):
    seed, users, workers, warmup, measured = block
    sent = simulate(seed, users, warmup, measured)
    workers = min(workers, users)
    records = [as_record(s, workers) for s in sent]
    random.Random(seed).shuffle(records)
    cut = CutRule(users=users, warmup_requests=warmup, measured_requests=measured).cut(records)
    opens, _ = omniscient(sent, users, warmup, measured)
    measured_sends = [r.t_send + r.wall_offset_ns for r, p in zip(records, cut.phases, strict=True) if p == "measure"]
    assert len(measured_sends) == measured
    for r, phase in zip(records, cut.phases, strict=True):
        wall = r.t_send + r.wall_offset_ns
        assert (phase == "warmup") == (wall < opens)
        if phase == "drain":
            assert wall > max(measured_sends)
        if phase == "measure" and warmup:
            own = [o for o in records if (o.worker, o.user) == (r.worker, r.user) and o.index < warmup]
            assert len(own) == warmup and all(o.t_done <= r.t_send for o in own)
    failed = [p for r, p in zip(records, cut.phases, strict=True) if not r.ok and r.t_send + r.wall_offset_ns >= opens]
    if any(not s.failed for s in sent):
        assert all(p in ("measure", "drain") for p in failed), "a failure is measured like any other"


@settings(deadline=None, max_examples=60)
@given(blocks, st.floats(0, 1))
def test_an_interrupted_block_never_measures_what_was_aborted(block, when):
    seed, users, workers, warmup, measured = block
    sent = simulate(seed, users, warmup, measured)
    workers = min(workers, users)
    stop = sent[int(when * (len(sent) - 1))].done
    records = [as_record(s, workers) for s in sent if s.done <= stop]
    for s in sent:
        if s.send < stop < s.done:
            aborted = dataclasses.replace(s, done=stop, failed=False)
            records.append(as_record(aborted, workers, error=ErrorKind.ABORTED))
    cut = CutRule(users=users, warmup_requests=warmup, measured_requests=measured).cut(records)
    chosen = [r for r, phase in zip(records, cut.phases, strict=True) if phase == "measure"]
    assert not any(r.aborted for r in chosen)
    assert len(chosen) <= measured
    if chosen:
        assert cut.window is not None
        assert cut.window.end_ns == max(r.t_done + r.wall_offset_ns for r in chosen) <= stop
    _, wanted = omniscient(sent, users, warmup, measured)
    if all(s.done <= stop for s in wanted) and cut.complete:
        assert {r.t_send + r.wall_offset_ns for r in chosen} == {s.send for s in wanted}
    elif any(s.done > stop for s in wanted):
        assert not cut.complete, "a slow request that was cut off must not be replaced by a quick one in silence"


def test_a_block_by_hand():
    """Two users, one warm-up request each, two measured. Times in ns; user 1 is slow to warm."""
    records = [
        record(0, done=10, user=0, index=0),
        record(11, done=20, user=0, index=1),  # before user 1 is warm: still warm-up
        record(0, done=25, user=1, index=0),
        record(21, done=30, user=0, index=2),  # sent before 25
        record(31, done=40, user=0, index=3, error="stall"),  # second after 25, and failed: measured
        record(26, done=60, user=1, index=1),  # first after 25
        record(41, done=50, user=0, index=4),
        record(51, done=65, user=0, index=5, error=ErrorKind.ABORTED),
    ]
    cut = CutRule(users=2, warmup_requests=1, measured_requests=2).cut(records)
    assert cut.phases == ["warmup", "warmup", "warmup", "warmup", "measure", "measure", "drain", "drain"]
    assert cut.window == Window(25, 60)
    assert cut.complete
    # Without user 1's second request nobody knows when it was sent: it might displace another.
    partial = [r for r in records if (r.user, r.index) != (1, 1)]
    cut = CutRule(users=2, warmup_requests=1, measured_requests=2).cut(partial)
    assert [p for r, p in zip(partial, cut.phases, strict=True) if r.index >= 3] == ["measure", "measure", "drain"]
    assert not cut.complete


@pytest.mark.parametrize("warmup", [0, 1])
def test_nothing_known_yet(warmup):
    cut = CutRule(users=2, warmup_requests=warmup, measured_requests=3).cut([])
    assert (cut.phases, cut.window, cut.complete) == ([], None, False)


def test_a_user_that_never_warms_up_keeps_the_window_shut():
    records = [record(10 * i, done=10 * i + 5, index=i) for i in range(50)]
    cut = CutRule(users=2, warmup_requests=1, measured_requests=3).cut(records)
    assert set(cut.phases) == {"warmup"}
    assert cut.window is None and not cut.complete


def test_a_block_bounded_by_time_measures_all_after_warm_up_and_is_never_complete():
    records = [record(10 * i, done=10 * i + 5, index=i) for i in range(5)]
    cut = CutRule(users=1, warmup_requests=2, measured_requests=None).cut(records)
    assert cut.phases == ["warmup", "warmup", "measure", "measure", "measure"]
    assert cut.window == Window(15, 45)
    assert not cut.complete


def test_warm_up_requests_that_failed_count_as_made():
    records = [record(0, done=5, error="http"), record(6, done=9, index=1)]
    cut = CutRule(users=1, warmup_requests=1, measured_requests=1).cut(records)
    assert cut.phases == ["warmup", "measure"]


def test_a_slow_request_that_was_cut_off_is_not_replaced_by_a_quick_one_in_silence():
    """Sent in time to be measured, and aborted: its place goes to another, so the block is not what was asked for."""
    records = [
        record(0, done=5, user=0),
        record(0, done=5, user=1),
        record(6, done=90, user=0, index=1, error=ErrorKind.ABORTED),
        *(record(10 * i, done=10 * i + 5, user=1, index=i) for i in range(1, 9)),
    ]
    cut = CutRule(users=2, warmup_requests=1, measured_requests=2).cut(records)
    assert cut.phases[:5] == ["warmup", "warmup", "drain", "measure", "measure"]
    assert not cut.complete
    records[2].error = None
    cut = CutRule(users=2, warmup_requests=1, measured_requests=2).cut(records)
    assert cut.phases[:5] == ["warmup", "warmup", "measure", "measure", "drain"]
    assert cut.complete and cut.window == Window(5, 90)
