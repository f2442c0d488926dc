import os
import socket
import subprocess
import sys

import psutil
import pytest

from stack.processes import strays

SLEEP = "import time; print('up', flush=True); time.sleep(3600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"


def start(code, **environment):
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env={**os.environ, **environment}, text=True
    )
    assert process.stdout.readline() == "up\n"
    return process


@pytest.fixture
def spawned():
    started = []
    yield started
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_only_marked_processes_and_their_children_are_found(tmp_path, spawned):
    # A child that gave up its environment, as one started with an empty one.
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], env={{}}).wait()"
    marked = start(child, BAKEOFF_STACK=str(tmp_path))
    other = start(SLEEP, BAKEOFF_STACK=str(tmp_path / "other"))
    bare = start(SLEEP)
    spawned += [marked, other, bare]
    children = psutil.Process(marked.pid).children()
    assert {p.pid for p in strays.ours(tmp_path)} == {marked.pid, *(p.pid for p in children)}
    assert len(children) == 1

    assert strays.end(strays.ours(tmp_path)) == []
    assert strays.ours(tmp_path) == []
    assert other.poll() is None and bare.poll() is None


def test_this_process_is_never_found(tmp_path, monkeypatch):
    code = f"from pathlib import Path; from stack.processes import strays; print(strays.ours(Path({str(tmp_path)!r})))"
    environment = {**os.environ, "BAKEOFF_STACK": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_the_stubborn_are_killed(tmp_path, spawned):
    stubborn = start(STUBBORN, BAKEOFF_STACK=str(tmp_path))
    spawned.append(stubborn)
    assert strays.end(strays.ours(tmp_path), patience_s=0.3) == []
    assert not psutil.pid_exists(stubborn.pid)


def test_ports():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not strays.port_is_free(port)
        holder = strays.port_holder(port)
        assert holder is not None and holder.pid == os.getpid()
        assert str(os.getpid()) in strays.name_of(holder)
    assert strays.port_is_free(port)
    assert strays.port_holder(port) is None
    assert "may not see" in strays.name_of(None)
