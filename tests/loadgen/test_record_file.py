"""The file of records: no whole line is lost, whatever ends the writing."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen import record_file
from loadgen.errors import UserError
from loadgen.record_file import RecordFile, read_records
from tests.loadgen.records import any_record, record


def write(path, records):
    file = RecordFile(path)
    file.append(records)
    file.close()


def fresh(tmp_path_factory):
    return tmp_path_factory.mktemp("run") / "requests.jsonl"


@settings(deadline=None)
@given(records=st.lists(any_record, max_size=6), batch=st.integers(1, 3))
def test_records_read_back_as_they_were_appended(tmp_path_factory, records, batch):
    path = fresh(tmp_path_factory)
    file = RecordFile(path)
    for start in range(0, len(records), batch):
        file.append(records[start : start + batch])
        assert read_records(path) == (records[: start + batch], 0), "every append is there at once"
    file.close()
    file.close()
    assert path.read_bytes().count(b"\n") == len(records)


def test_a_file_cut_at_any_byte_keeps_all_whole_lines_and_takes_later_ones(tmp_path):
    records = [record(i, [5, 9], index=i, text="é☃\n\u2028\U0001f600", error_detail='"\\') for i in range(3)]
    whole = tmp_path / "whole"
    write(whole, records)
    data = whole.read_bytes()
    path = tmp_path / "cut"
    later = record(99, index=99)
    for cut in range(len(data) + 1):
        path.write_bytes(data[:cut])
        lines = data[:cut].split(b"\n")
        # A last line without its newline counts when nothing else of it is missing.
        complete = data[:cut].count(b"\n") + (data[cut : cut + 1] == b"\n" and lines[-1] != b"")
        torn = lines[-1] != b"" and data[cut : cut + 1] != b"\n"
        assert read_records(path) == (records[:complete], int(torn)), cut
        write(path, [later])
        assert read_records(path) == ([*records[:complete], later], int(torn)), cut


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
    assert broken == (1 if junk.replace(b"\n", b" ").strip() else 0)


@pytest.mark.parametrize("line", [b"null", b"1", b'"run_id"', b"[]", b"{}", b"[[1]]", b"true", b"NaN", b"\x00" * 20])
def test_json_that_is_no_record_is_a_broken_line(tmp_path, line):
    path = tmp_path / "requests.jsonl"
    path.write_bytes(line + b"\n")
    assert read_records(path) == ([], 1)


def test_no_records_file_and_one_that_cannot_be_read(tmp_path):
    assert read_records(tmp_path / "absent") == ([], 0)
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
    assert read_records(path)[1] == 0
    file.append([record(2), record(3)])  # the batch that failed can be given again
    assert ([r.t_send for r in read_records(path)[0]], read_records(path)[1]) == ([1, 2, 3], 0)
    file.close()


def test_kill_9_loses_nothing_that_was_appended(tmp_path):
    path = tmp_path / "requests.jsonl"
    program = (
        "import sys, itertools; from pathlib import Path; from loadgen.record_file import RecordFile\n"
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
    assert broken <= 1
    assert len(found) >= last + 1
    assert [r.t_send for r in found] == list(range(len(found)))
