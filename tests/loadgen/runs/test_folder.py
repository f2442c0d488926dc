"""The run folder: nothing that was measured is lost, whatever ends the run."""

from __future__ import annotations

import os
import subprocess
import sys

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.errors import UserError
from loadgen.record import FIELD_NAMES, ErrorKind
from loadgen.runs import parquet
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import BlockFacts, Manifest, save_manifest
from loadgen.runs.parquet import read_parquet, write_parquet
from loadgen.runs.record_file import RecordFile, read_records
from tests.loadgen.records import any_record, record


def block(record_id="b", **fields) -> BlockFacts:
    given = {"id": "b", "engine": "a", "cell": "c", "repeat": 1, "users": 1, "warmup_requests": 1}
    return BlockFacts(**{**given, "record_id": record_id, "measured_requests": 2, "started_at": 1, **fields})


def manifest(run_id="r", started_at=1.0, **fields) -> Manifest:
    return Manifest(run_id=run_id, started_at=started_at, **fields)


def write(path, records):
    file = RecordFile(path)
    file.append(records)
    file.close()


@pytest.fixture
def tiny_disk(tmp_path):
    """A real file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = sys.platform == "linux" and os.geteuid() == 0
    if mounted:
        command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    if not mounted:
        pytest.skip("needs root and the right to mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full(tiny_disk):
    folder = RunFolder.create(tiny_disk, manifest(blocks=[block(measured_requests=None)]))
    file = RecordFile(folder.records_path)
    written = 0
    with pytest.raises(OSError, match="No space"):
        while True:
            file.append([record(written, range(1000), index=written, block="b")])
            written += 1
    file.close()
    found, broken = read_records(folder.records_path)
    assert ([r.index for r in found], broken) == (list(range(written)), [])

    old = folder.load().manifest
    with pytest.raises(UserError, match=r"No space left on device\. Free some space"):
        save_manifest(manifest(messages=["x" * 300_000]), folder.manifest_path)
    with pytest.raises(UserError, match=r"cannot be written.*records are safe"):
        write_parquet(folder)
    assert folder.load().manifest == old
    assert len(folder.load().blocks[0].records) == written
    assert {p.name for p in folder.path.iterdir()} == {"manifest.json", "requests.jsonl"}

    with pytest.raises(UserError, match="No space"):
        RunFolder.create(tiny_disk, manifest("second", messages=["x" * 300_000]))


@settings(deadline=None, max_examples=40)
@given(records=st.lists(any_record, max_size=6, unique_by=lambda one: (one.worker, one.user, one.index, one.t_send)))
def test_parquet_holds_every_field_of_every_record(tmp_path_factory, records):
    for r in records:
        r.block = "b"
        r.wall_offset_ns = 0
    folder = RunFolder.create(tmp_path_factory.mktemp("runs"), manifest(blocks=[block()]))
    write(folder.records_path, records)
    frame = pl.read_parquet(write_parquet(folder))
    assert set(frame.columns) == {*FIELD_NAMES, "phase"}
    rows = frame.to_dicts()
    phases = [row.pop("phase") for row in rows]
    assert rows == [r.to_dict() for r in records]
    assert phases == folder.load().blocks[0].cut.phases if records else phases == []
    folder.records_path.unlink()
    assert folder.load().blocks[0].records == records, "where the parquet is all there is, it is read back"


def test_a_parquet_of_something_else_is_told(tmp_path):
    folder = RunFolder.create(tmp_path, manifest(blocks=[block()]))
    for write_other in (lambda p: p.write_bytes(b"no parquet"), pl.DataFrame({"a": [1]}).write_parquet):
        write_other(folder.parquet_path)
        with pytest.raises(UserError, match=r"requests\.parquet: not a readable file of records: "):
            folder.load()


def test_phases_in_the_parquet_by_hand(tmp_path):
    folder = RunFolder.create(tmp_path, manifest(blocks=[block(), block("empty")]))
    write(
        folder.records_path,
        [
            record(30, done=39, index=2, block="b"),
            record(0, done=9, index=0, block="b"),
            record(10, done=29, index=1, block="b", error="stall"),
            record(40, done=41, index=3, block="b", error=ErrorKind.ABORTED),
            record(0, done=5, block="stranger"),
        ],
    )
    data = folder.load()
    assert [len(b.records) for b in data.blocks] == [4, 0]
    assert [r.index for r in data.blocks[0].measured] == [1, 2], "in the order they were sent"
    frame = pl.read_parquet(write_parquet(folder, data))
    assert dict(zip(frame["index"], frame["phase"], strict=True)) == {
        0: "warmup",
        1: "measure",
        2: "measure",
        3: "drain",
    }
    assert frame.schema["event_offsets_ns"] == pl.List(pl.Int64)


def test_text_that_utf8_cannot_hold_does_not_stop_the_closing(tmp_path):
    """JSON may carry half of a surrogate pair; an engine that splits an emoji over two events sends just that."""
    folder = RunFolder.create(tmp_path, manifest(blocks=[block()]))
    write(folder.records_path, [record(block="b", text="half \ud83d")])
    assert folder.load().blocks[0].records[0].text == "half \ud83d"
    assert pl.read_parquet(write_parquet(folder))["text"].to_list() == ["half ?"]


def test_a_parquet_file_that_unpacks_without_end_is_refused(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path, manifest(blocks=[block()]))
    write(folder.records_path, [record(block="b", index=at, text="x" * 100_000) for at in range(50)])
    path = write_parquet(folder)
    assert path.stat().st_size < 40_000
    assert len(read_parquet(path)) == 50
    monkeypatch.setattr(parquet, "MAX_UNPACKED", 1 << 20)
    with pytest.raises(UserError, match=r"not a readable file of records: its rows would take 4 MiB\. Copy it anew"):
        read_parquet(path)


def test_what_a_parquet_file_breaks_in_the_library_is_a_sentence(tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path, manifest(blocks=[block()]))
    path = write_parquet(folder)

    def panic(*_, **__):
        raise pl.exceptions.PanicException("out of luck\nat 5")

    monkeypatch.setattr(pl, "read_parquet", panic)
    with pytest.raises(UserError, match=r"not a readable file of records: out of luck\. Copy it anew"):
        read_parquet(path)


@pytest.mark.parametrize("frame", [{"x": [1]}, {"text": [["a"]]}, {"text": [{"a": 1}]}, {"event_offsets_ns": [[[1]]]}])
def test_a_parquet_file_of_something_else_is_refused(tmp_path, frame):
    pl.DataFrame(frame).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="not a readable file of records: it"):
        read_parquet(tmp_path / "a.parquet")


def test_a_run_without_records_closes(tmp_path):
    folder = RunFolder.create(tmp_path, manifest(blocks=[block()]))
    assert pl.read_parquet(write_parquet(folder)).height == 0
    write_parquet(folder)  # again is fine


def test_a_run_is_found_by_id_by_path_or_as_the_newest(tmp_path, monkeypatch):
    for run_id, started in (("a", 3.0), ("b", 2.0), ("c", 1.0)):
        RunFolder.create(tmp_path / "runs", manifest(run_id, started))
    runs = tmp_path / "runs"
    (runs / "junk").mkdir()
    assert RunFolder.find(runs, None).path == runs / "a", "by its start, not by its name"
    assert RunFolder.find(runs, "b").path == runs / "b"
    assert RunFolder.find(runs, str(runs / "c")).path == runs / "c"
    with pytest.raises(UserError, match=r"no run 'nope'.*Newest in .*: a, b, c"):
        RunFolder.find(runs, "nope")
    with pytest.raises(UserError, match="no run in"):
        RunFolder.find(tmp_path / "absent", None)


def test_the_newest_is_the_newest_that_measured_something(tmp_path):
    for run_id, started in (("old", 1.0), ("measured", 2.0), ("empty", 3.0)):
        RunFolder.create(tmp_path, manifest(run_id, started))
    write(tmp_path / "old" / "requests.jsonl", [record(block="b")])
    write(tmp_path / "measured" / "requests.jsonl", [record(block="b")])
    (tmp_path / "empty" / "requests.jsonl").touch()
    write_parquet(RunFolder(tmp_path / "empty"))
    assert RunFolder.find(tmp_path, None).path.name == "measured"


def test_a_broken_run_does_not_hide_the_others(tmp_path):
    RunFolder.create(tmp_path, manifest("good"))
    broken = RunFolder.create(tmp_path, manifest("later", 9.0))
    broken.manifest_path.write_text("{")
    assert RunFolder.find(tmp_path, None).path.name == "good"
    (tmp_path / "good" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="readable manifest"):
        RunFolder.find(tmp_path, None)


def test_a_run_folder_is_never_taken_twice(tmp_path):
    RunFolder.create(tmp_path, manifest())
    with pytest.raises(UserError, match="exists already"):
        RunFolder.create(tmp_path, manifest())
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        RunFolder.create(tmp_path / "file", manifest())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_run_made_by_root_belongs_to_the_owner_of_the_runs(tmp_path):
    """Locust's containers do not run as root: they must be able to write records into it."""
    os.chown(tmp_path, 10001, 10002)
    folder = RunFolder.create(tmp_path, Manifest(run_id="r", started_at=1.0))
    found = folder.path.stat()
    assert (found.st_uid, found.st_gid) == (10001, 10002)
