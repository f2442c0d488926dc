"""Files for results: whether they can be written is found out without a trace."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loadgen.errors import UserError
from loadgen.files import check_folder, check_writable


def test_what_can_be_written_is_left_as_it_was(tmp_path):
    there = tmp_path / "there.json"
    there.write_text("kept")
    check_writable(there)
    check_writable(tmp_path / "new.json")
    check_folder(tmp_path)
    check_folder(tmp_path / "runs" / "of" / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]
    assert there.read_text() == "kept"


def test_no_file_is_opened_that_is_more_than_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    check_writable(tmp_path / "pipe")  # to open it would wait for a reader
    check_writable(Path("-"))
    check_writable(None)


@pytest.mark.parametrize(
    ("name", "said"),
    [("", "it is a folder"), ("no/x.json", "its folder must exist"), ("file/x.json", "its folder must exist")],
)
def test_what_cannot_be_written_is_told(tmp_path, name, said):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=said):
        check_writable(tmp_path / name)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="the system has no /proc, where even root makes no file")
def test_where_no_file_can_be_made():
    with pytest.raises(UserError, match=r"/proc/x: cannot be written: .* Name a file"):
        check_writable(Path("/proc/x"))
    with pytest.raises(UserError, match=r"--runs-dir /proc/x: runs cannot be written there \(/proc: "):
        check_folder(Path("/proc/x"))


def test_a_file_is_no_folder_for_runs(tmp_path):
    (tmp_path / "file").touch()
    for name in ("file", "file/runs"):
        with pytest.raises(UserError, match="file is no folder"):
            check_folder(tmp_path / name)
