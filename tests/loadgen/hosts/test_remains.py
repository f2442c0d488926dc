"""What killed processes leave behind, and that nothing else is taken away."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loadgen.hosts.remains import SHARED_MEMORY, clear, kill, renew, shared_memory, sweep

pytestmark = pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="Linux only")

HOLD = """
import time
from multiprocessing.shared_memory import SharedMemory
held = SharedMemory(create=True, size=1000)
print(held.name, flush=True)
time.sleep(600)
"""


def holder() -> tuple[subprocess.Popen[str], Path]:
    """A process of a group of its own that holds a segment, as an engine does, and the segment."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, SHARED_MEMORY / process.stdout.readline().strip()


def test_what_killed_processes_held_goes_with_them():
    process, segment = holder()
    with process:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children()]
        assert shared_memory(family) == {segment} and segment.exists()
        assert kill(family) == []
    assert not segment.exists()
    assert not any(each.is_running() for each in family)


def test_what_somebody_still_holds_stays():
    segment = SHARED_MEMORY / f"psm_bakeoff_test_{os.getpid()}"
    with segment.open("wb"):
        sweep({segment})
        assert segment.exists()
    sweep({segment})
    assert not segment.exists()


def test_a_file_that_somebody_put_there_is_no_remnant():
    weights = SHARED_MEMORY / f"bakeoff-test-{os.getpid()}.gguf"
    try:
        with weights.open("wb"):
            assert weights not in shared_memory([psutil.Process()])
    finally:
        weights.unlink()


def test_a_folder_for_temporary_files_begins_empty_and_goes(tmp_path):
    folder = tmp_path / "engines" / "tmp"
    renew(folder)
    (folder / "socket").touch()
    renew(folder)
    assert list(folder.iterdir()) == [] and folder.stat().st_mode & 0o777 == 0o700
    clear(folder)
    assert not folder.exists()
    (tmp_path / "link").symlink_to(tmp_path / "engines")
    clear(tmp_path / "link")
    assert (tmp_path / "engines").exists()
