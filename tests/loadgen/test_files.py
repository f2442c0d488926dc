"""Files are written whole or not at all, and whether one can be written is found out without a trace."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.errors import UserError
from loadgen.files import (
    atomic_write,
    cannot_be_written,
    check_folder,
    check_writable,
    make_folder,
    read_regular,
    write_file,
)


def test_a_file_is_written_over_with_its_mode_and_nothing_beside_it(tmp_path):
    path = tmp_path / "facts.json"
    atomic_write(path, "old é\n")
    assert path.read_bytes() == "old é\n".encode()
    atomic_write(path, b"\x00new", mode=0o640, sync=True)
    assert path.read_bytes() == b"\x00new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_no_link_is_written_through(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("report.html", f"report.html.{os.getpid()}.part"):
        (folder / name).symlink_to(victim)
    atomic_write(folder / "report.html", "new")
    assert victim.read_text() == "mine"
    assert not (folder / "report.html").is_symlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / "export-vllm").symlink_to(elsewhere)
    with pytest.raises(OSError, match="link"):
        make_folder(folder / "export-vllm")


@pytest.mark.parametrize("kind", ["link", "device", "fifo", "folder", "large", "hanging link"])
def test_what_is_no_regular_file_of_a_size_is_not_read(tmp_path, kind):
    path = tmp_path / "manifest.json"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        path.write_bytes(b" " * (1 << 20) + b" ")
    else:
        path.symlink_to({"link": "/etc/passwd", "device": "/dev/zero"}.get(kind, tmp_path / "nowhere"))
    with pytest.raises(OSError):
        read_regular(path, 1 << 20)


def test_what_utf_8_cannot_hold_costs_a_letter_and_not_the_file(tmp_path):
    atomic_write(tmp_path / "page.html", "half \ud800 pair")
    assert (tmp_path / "page.html").read_text() == "half ? pair"


@pytest.mark.parametrize("where", ["open", "write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failing_disk_leaves_the_old_file_and_says_why(tmp_path, monkeypatch, where, number):
    path = tmp_path / "facts.json"
    path.write_text("old")

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    real = os.fdopen

    if where == "write":
        monkeypatch.setattr(os, "fdopen", lambda *a, **o: _Full(real(*a, **o), fail))
    else:
        monkeypatch.setattr(os, where, fail)
    with pytest.raises(UserError) as caught:
        write_file(path, "new" * 10_000, sync=True)
    monkeypatch.undo()
    said = str(caught.value)
    assert said.startswith(f"{path}: cannot be written: {os.strerror(number)}.")
    assert ("Free some space" in said) == (number != errno.EIO)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


class _Full:
    """An open file whose disk takes nothing more."""

    def __init__(self, file, fail):
        self._file, self.write = file, fail

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


def test_killed_at_any_moment_a_writer_leaves_the_old_or_the_new(tmp_path):
    path = tmp_path / "facts"
    program = (
        "import itertools, sys; from pathlib import Path; from loadgen.files import atomic_write\n"
        "for i in itertools.count(): atomic_write(Path(sys.argv[1]), f'{i} ' * 50_000); print(i, flush=True)\n"
    )
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(10):
            last = int(child.stdout.readline())
        child.kill()
        child.communicate()
        found = path.read_text().split(" ")[:-1]
        assert len(found) == 50_000 and len(set(found)) == 1
        assert int(found[0]) >= last


def test_a_hint_stands_before_what_helps_on_a_full_disk():
    full = OSError(errno.ENOSPC, "No space left on device")
    assert str(cannot_be_written("x.parquet", full, "The records are safe.")) == (
        "x.parquet: cannot be written: No space left on device. The records are safe. Free some space and try again."
    )


def test_what_launchers_take_into_images_imports_the_standard_library_only():
    program = "import sys, loadgen.files; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True).stdout
    assert not set(loaded.split()) - sys.stdlib_module_names - {"loadgen", "__main__"}


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
