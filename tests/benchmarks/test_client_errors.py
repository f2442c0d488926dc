"""The comparison's arithmetic against hand-made truth, and the CPU window against hand-made samples."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.client.errors import Measured, compare
from benchmarks.client.loads import BLAST, Load
from benchmarks.client.usage import ProcessTree, Sample, cpu_us_per_event, loaded_window
from loadgen.errors import UserError

MS = 1_000_000
LOAD = Load("2", 2, 2, tokens=3)


def truth(requests: list[tuple[str, int, list[int]]], *, outcome: str = "ok", blocked: int = 0) -> dict[str, Any]:
    """Truth of requests (id, arrival ms, content writes ms). `blocked`: ms by which each write was held back."""
    rows = [
        (number, at * MS, kind)
        for number, (_, _, times) in enumerate(requests)
        for at, kind in [(times[0] - 1, 1), *((at, 2) for at in times), (times[-1] + 1, 12)]
    ]
    rows.sort(key=lambda row: row[1])
    owner, at, kind = (np.array(column) for column in zip(*rows, strict=True))
    return {
        "event_request": owner,
        "event_before": at,
        "event_after": at + blocked * MS,
        "event_kind": kind | (32 if blocked else 0),
        "request_id": np.array([name for name, _, _ in requests]),
        "request_t_arrived": np.array([arrived * MS for _, arrived, _ in requests]),
        "request_t_end": np.array([(times[-1] + 1) * MS for _, _, times in requests]),
        "request_outcome": np.array([outcome] * len(requests)),
        "request_tokens_written": np.array([len(times) for _, _, times in requests]),
    }


TRUE = truth(
    [
        ("a", 100, [150, 160, 170]),
        ("b", 101, [151, 161, 171]),
        ("c", 200, [250, 260, 270]),
        ("d", 201, [253, 263, 273]),
    ]
)


def own(name: str, sent: float, ttft: float, tpot: float, **more: Any) -> Measured:
    """In ms."""
    return Measured(sent / 1e3, ttft / 1e3, tpot / 1e3, name, **more)


MEASURED = [
    own("d", 200.5, 55, 10),
    own("c", 200, 50, 11),
    own("a", 99, 90, 10),
    own("b", 100, 90, 10),
]


def test_errors_are_tool_minus_truth_and_first_requests_are_left_out():
    errors = compare(MEASURED, TRUE, LOAD)
    assert errors.ttft_ms == pytest.approx([0, 3])  # c, d
    assert errors.tpot_ms == pytest.approx([1, 0])
    assert errors.tpot_percent == pytest.approx([10, 0])
    without_ids = [replace(one, request_id="") for one in MEASURED]
    assert compare(without_ids, TRUE, LOAD).ttft_ms == pytest.approx([0, 3])


def test_a_tool_that_tells_its_streams_apart_decides_which_were_first():
    told = [replace(one, first=one.request_id in "ac") for one in MEASURED]
    assert compare(told, TRUE, LOAD).ttft_ms == pytest.approx([40, 3])  # b, d


def test_ids_decide_over_the_order_of_sending():
    crossed = [replace(one, t_send=(0.2005 if one.request_id == "c" else 0.2)) for one in MEASURED[:2]]
    assert compare([*crossed, *MEASURED[2:]], TRUE, LOAD).ttft_ms == pytest.approx([3, 0])  # d was sent first


def test_first_requests_may_have_other_lengths_and_no_others():
    short = truth([("a", 100, [150]), ("b", 101, [151, 161]), ("c", 200, [250, 260, 270])])
    assert len(compare(MEASURED[1:], short, LOAD).ttft_ms) == 1
    with pytest.raises(UserError, match=r"answers of \[3\] tokens where 4"):
        compare(MEASURED[1:], short, replace(LOAD, tokens=4))


def test_what_does_not_join_is_an_error_and_never_a_figure():
    with pytest.raises(UserError, match="no request"):
        compare([], TRUE, LOAD)
    with pytest.raises(UserError, match="5 requests, and the server answered 4"):
        compare([*MEASURED, own("e", 300, 50, 10)], TRUE, LOAD)
    with pytest.raises(UserError, match="with the id of 1 requests, such as x"):
        compare([*MEASURED[:3], own("x", 99, 50, 10)], TRUE, LOAD)
    with pytest.raises(UserError, match="same id"):
        compare([*MEASURED[:3], MEASURED[0]], TRUE, LOAD)
    nameless = [replace(one, request_id="") for one in MEASURED]
    with pytest.raises(UserError, match="3 requests, and the server answered 4"):
        compare(nameless[:3], TRUE, LOAD)
    with pytest.raises(UserError, match=r"arrived 9\.0 ms before it was sent"):
        compare([replace(one, t_send=one.t_send + 0.009) for one in nameless], TRUE, LOAD)
    with pytest.raises(UserError, match="answered 0"):
        compare(MEASURED, {**TRUE, "request_outcome": np.array(["aborted"] * 4)}, LOAD)


def test_a_tool_with_ids_may_leave_one_answer_a_stream_behind():
    assert len(compare(MEASURED[1:], TRUE, LOAD).ttft_ms) == 1
    with pytest.raises(UserError, match="1 requests, and the server answered 4"):
        compare(MEASURED[1:2], TRUE, LOAD)


def test_a_blast_has_no_tpot_and_a_write_that_was_held_back_began_at_once():
    at_once = truth([("a", 100, [100, 100, 100]), ("b", 200, [200, 200, 200])], blocked=40)
    errors = compare([own("a", 100, 1, 1), own("b", 200, 5, 1)], at_once, Load(BLAST, 1, 2, tokens=3, tpot_ms=0))
    assert errors.ttft_ms == pytest.approx([5])
    assert not len(errors.tpot_percent)


def test_cpu_is_that_of_the_loaded_window_over_the_events_in_it():
    assert loaded_window(TRUE, 2) == (101 * MS, 271 * MS)
    samples = [
        Sample(90 * MS, 5_000_000_000, 0),  # its start
        Sample(155 * MS, 5_001_000_000, 0),
        Sample(230 * MS, 5_001_500_000, 0),
        Sample(262 * MS, 5_001_700_000, 0),
        Sample(300 * MS, 9_000_000_000, 0),  # its evaluation
    ]
    # Content writes after 155 and up to 262: 160 161 170 171 250 253 260.
    assert cpu_us_per_event(samples, TRUE, 2) == pytest.approx(700 / 7)
    assert cpu_us_per_event(samples[:2], TRUE, 2) is None


def test_a_tree_counts_its_children_and_those_that_have_ended():
    """Each process burns a share of CPU by its own clock, says so and waits; then the child ends."""
    burn = "import time, sys\nwhile time.process_time() < {}: pass\nprint('burnt', flush=True)\nsys.stdin.read(1)\n"
    child = burn.format(0.3)
    parent = (
        "import subprocess, sys, time\n"
        f"p = subprocess.Popen([sys.executable, '-c', {child!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "p.stdout.readline()\nprint('ready', flush=True)\nsys.stdin.readline()\n"
        "p.communicate(b'x')\nprint('alone', flush=True)\nsys.stdin.readline()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        tree = ProcessTree(process.pid)
        assert process.stdout.readline() == "ready\n"
        both = tree.sample()
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "alone\n"
        alone = tree.sample()
        process.stdin.write("\n")
        process.stdin.flush()
    assert both.cpu_ns >= 0.3e9
    assert alone.cpu_ns >= both.cpu_ns and alone.rss_bytes < both.rss_bytes
