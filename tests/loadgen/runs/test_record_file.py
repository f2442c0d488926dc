"""The file of records: no whole line is lost, whatever ends the writing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.errors import UserError
from loadgen.runs import record_file
from loadgen.runs.record_file import BadLine, RecordFile, read_records
from tests.loadgen.records import any_record, record


def write(path, records):
    file = RecordFile(path)
    file.append(records)
    file.close()


def which(one):
    """What no two requests of a run have in common."""
    return one.block, one.worker, one.user, one.index, one.t_send


def fresh(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "requests.jsonl"


@settings(deadline=None)
@given(records=st.lists(any_record, max_size=6, unique_by=which), batch=st.integers(1, 3))
def test_records_read_back_as_they_were_appended(tmp_path_factory, records, batch):
    path = fresh(tmp_path_factory)
    file = RecordFile(path)
    for start in range(0, len(records), batch):
        file.append(records[start : start + batch])
        assert read_records(path) == (records[: start + batch], []), "every append is there at once"
    file.close()
    file.close()
    assert path.read_bytes().count(b"\n") == len(records)


def test_a_file_cut_at_any_byte_keeps_all_whole_lines_and_takes_later_ones(tmp_path):
    records = [record(i, [5, 9], index=i, text="é☃\n\u2028\U0001f600", error_detail='"\\') for i in range(3)]
    whole = tmp_path / "whole"
    write(whole, records)
    data = whole.read_bytes()
    path = tmp_path / "cut"
    later = record(99, index=99, block="another attempt")
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        lines = data[:cut].split(b"\n")
        # A last line without its newline counts when nothing else of it is missing.
        complete = data[:cut].count(b"\n") + (data[cut : cut + 1] == b"\n" and lines[-1] != b"")
        torn = lines[-1] != b"" and data[cut : cut + 1] != b"\n"
        found, bad = read_records(path)
        assert (found, [line.torn for line in bad]) == (records[:complete], [True] * torn), cut
        write(path, [later])
        found, bad = read_records(path)
        assert (found, [line.torn for line in bad]) == ([*records[:complete], later], [True] * torn), cut


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_junk_between_the_lines_is_counted_and_skipped(tmp_path_factory, junk):
    path = fresh(tmp_path_factory)
    write(path, [record(1)])
    with path.open("ab") as file:
        file.write(junk.replace(b"\n", b" "))
    write(path, [record(2)])
    found, broken = read_records(path)
    assert [r.t_send for r in found] == [1, 2]
    assert len(broken) == (1 if junk.replace(b"\n", b" ").strip() else 0)


@pytest.mark.parametrize("line", [b"null", b"1", b'"run_id"', b"[]", b"{}", b"[[1]]", b"true", b"NaN", b"\x00" * 20])
def test_json_that_is_no_record_is_a_broken_line(tmp_path, line):
    path = tmp_path / "requests.jsonl"
    path.write_bytes(line + b"\n")
    found, bad = read_records(path)
    assert (found, len(bad)) == ([], 1)


def edited(line: bytes, **values) -> bytes:
    """A line with other values, as if edited by hand."""
    return json.dumps(json.loads(line) | values).encode()


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"t_first": "12"}, 't_first is "12", not a whole number'),
        ({"output_tokens": 1.5}, "output_tokens is 1.5, not a whole number"),
        ({"events": True}, "events is true, not a whole number"),
        ({"events": 2**31}, "events is 2147483648, which is too large"),
        ({"t_send": 2**63}, "t_send is 9223372036854775808, which is too large"),
        ({"cell": None}, "cell is null, not text"),
        ({"error_detail": 7}, "error_detail is 7, not text"),
        ({"event_offsets_ns": ["1"]}, "it is no request record"),
    ],
)
def test_a_value_that_a_field_cannot_hold_sets_its_line_aside(tmp_path, values, problem):
    path = tmp_path / "requests.jsonl"
    write(path, [record(1), record(2), record(3)])
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], edited(lines[1], **values), lines[2]]) + b"\n")
    found, bad = read_records(path)
    assert [r.t_send for r in found] == [1, 3]
    assert bad == [BadLine(2, torn=False, problem=problem)]


def test_only_the_end_of_a_writers_work_can_be_torn(tmp_path):
    path = tmp_path / "requests.jsonl"
    write(path, [record(1, block="a"), record(2, block="a"), record(3, block="b")])
    lines = path.read_bytes().splitlines()
    cut = lines[0][:40]
    path.write_bytes(b"\n".join([lines[0], cut, lines[1], b"\n", cut, lines[2], b"{]}", cut]))
    _, bad = read_records(path)
    assert [(line.number, line.torn) for line in bad] == [(2, False), (6, True), (8, False), (9, True)]
    assert {line.problem for line in bad} == {"it is not JSON"}


def test_a_record_that_stands_twice_counts_once_and_is_told(tmp_path):
    """Twice, it would double its block's throughput: as in a file that was joined with a copy of itself."""
    path = tmp_path / "requests.jsonl"
    write(path, [record(1, [5]), record(2, [5], index=1)])
    path.write_bytes(path.read_bytes() * 2)
    found, bad = read_records(path)
    assert [one.t_send for one in found] == [1, 2]
    assert [(line.number, line.torn, str(line.problem)) for line in bad] == [
        (number, False, "this request stands there already") for number in (3, 4)
    ]


def test_no_records_file_and_one_that_cannot_be_read(tmp_path):
    assert read_records(tmp_path / "absent") == ([], [])
    with pytest.raises(UserError, match="cannot be read"):
        read_records(tmp_path)


def test_a_full_disk_leaves_whole_lines_and_later_appends_are_fine(tmp_path, monkeypatch):
    path = tmp_path / "requests.jsonl"
    file = RecordFile(path)
    file.append([record(1)])
    real, room = os.write, [137]

    def nearly_full(fd, data):
        if room[0] == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = real(fd, bytes(data)[: room[0]])
        room[0] -= taken
        return taken

    monkeypatch.setattr(record_file.os, "write", nearly_full)
    with pytest.raises(OSError, match="No space"):
        file.append([record(2), record(3)])
    monkeypatch.undo()
    assert read_records(path)[1] == []
    file.append([record(2), record(3)])  # the batch that failed can be given again
    assert ([r.t_send for r in read_records(path)[0]], read_records(path)[1]) == ([1, 2, 3], [])
    file.close()


def test_kill_9_loses_nothing_that_was_appended(tmp_path):
    path = tmp_path / "requests.jsonl"
    program = (
        "import sys, itertools; from pathlib import Path; from loadgen.runs.record_file import RecordFile\n"
        "from tests.loadgen.records import record\n"
        "file = RecordFile(Path(sys.argv[1]))\n"
        "for i in itertools.count(): file.append([record(i, range(200))]); print(i, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    for _ in range(50):
        child.stdout.readline()
    child.kill()
    last = int((child.stdout.read().split() or ["49"])[-1])
    child.wait()
    child.stdout.close()
    found, broken = read_records(path)
    assert len(broken) <= 1
    assert len(found) >= last + 1
    assert [r.t_send for r in found] == list(range(len(found)))


WRITER = """
import sys
from pathlib import Path
from loadgen.runs.record_file import RecordFile
from tests.loadgen.records import record
file = RecordFile(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.readline()
for number in range(200):
    file.append([record(number, range(1, 400), index=place, block=sys.argv[2]) for place in range(5)])
"""


def test_two_processes_append_to_one_file_in_whole_lines(tmp_path):
    path = tmp_path / "requests.jsonl"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in "ab"
    ]
    for writer in writers:
        assert writer.stdout.readline() == "open\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    assert [writer.wait() for writer in writers] == [0, 0]
    for writer in writers:
        writer.stdin.close()
        writer.stdout.close()
    found, bad = read_records(path)
    assert bad == []
    for name in "ab":
        own = [(r.t_send, r.index) for r in found if r.block == name]
        assert own == [(number, place) for number in range(200) for place in range(5)]


def test_a_line_that_another_writer_left_torn_costs_nobody_elses(tmp_path):
    path = tmp_path / "requests.jsonl"
    first, second = RecordFile(path), RecordFile(path)
    first.append([record(1, block="a")])
    with path.open("ab") as torn:
        torn.write(b'{"run_id":"x","blo')  # a third was killed here
    second.append([record(2, block="b")])
    first.append([record(3, block="a")])
    first.close()
    second.close()
    found, bad = read_records(path)
    assert [r.t_send for r in found] == [1, 2, 3]
    assert len(bad) == 1
