"""Strangers at the master's port, who know no secret: nothing that they send counts, and they are told nothing.

They speak plain ZeroMQ and msgpack, no code of ours.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgpack
import psutil
import pytest
import zmq

from loadgen.distributed.locust_process import OwnLocust
from loadgen.endpoints.seats import Seat
from loadgen.runs.record_file import read_records
from tests.fault_server import FaultServer
from tests.loadgen.bench.races import LIMIT_S, TOP, wait_for
from tests.loadgen.distributed.test_web_ui import Ui
from tests.loadgen.records import record

pytestmark = pytest.mark.integration
KEY = "sk-SENTINEL-4711"


class Stranger:
    """Somebody who reaches the master's port."""

    def __init__(self, port: int, name: str, set_up: Callable[[zmq.Socket[bytes]], None] = lambda socket: None) -> None:
        self._context = zmq.Context()
        self.name = name
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.IDENTITY, name.encode())
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDTIMEO, 200)
        set_up(self.socket)
        self.socket.connect(f"tcp://127.0.0.1:{port}")

    def send(self, kind: str, data: Any) -> None:
        self.raw(msgpack.dumps((kind, data, self.name)))

    def raw(self, frame: bytes) -> None:
        with contextlib.suppress(zmq.Again):  # ZeroMQ gives a connection up that shakes no hand
            self.socket.send(frame)

    def heard(self, limit_ms: int = 300) -> list[bytes]:
        frames = []
        while self.socket.poll(limit_ms):
            frames.append(self.socket.recv())
        return frames

    def leave(self) -> None:
        self._context.destroy(0)


def wrong_secret(socket: zmq.Socket[bytes]) -> None:
    """CURVE as a worker speaks it, with the key of another stack's master."""
    socket.curve_serverkey = zmq.curve_keypair()[0]
    socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()


def plain_password(socket: zmq.Socket[bytes]) -> None:
    """Another of ZeroMQ's mechanisms, which asks for a password in clear."""
    socket.plain_username, socket.plain_password = b"worker", b"secret"


def test_a_race_with_strangers_at_the_door_is_as_one_without(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    outside = tmp_path / "absolute"
    with FaultServer(in_process=False, fault="normal?gap_ms=5") as server:
        seats = [Seat(name="a", base_url=server.url, api_key_env="MY_KEY")]
        with OwnLocust(seats, tmp_path / "runs", tmp_path / "log", workers=1) as client:
            ui = Ui(client.url, tmp_path / "runs", tmp_path / "log")
            port = next(
                int(argument)
                for process in psutil.Process().children()
                for before, argument in zip(process.cmdline(), process.cmdline()[1:], strict=False)
                if before == "--master-bind-port"
            )
            before = ui.get("/bakeoff/workers").json()
            (worker,) = before
            strangers = [
                Stranger(port, "rogue_1"),
                Stranger(port, "rogue_2", wrong_secret),
                Stranger(port, "rogue_3", plain_password),
                Stranger(port, worker),  # under the name of the real one
            ]
            run_id = ui.start(user_count="2", spawn_rate="2", requests="40")
            block = ui.status()["block"]
            forged = [
                record(0, (1000, 2000), run_id=run, block=block, engine="a", worker=worker, index=index).to_dict()
                for index, run in enumerate([run_id, "../../escaped", str(outside)])
            ]
            for stranger in strangers:
                stranger.raw(b"")
                stranger.send("client_ready", "2.47.0")
                stranger.send("bakeoff_records", {"records": forged})
                stranger.send("quit", None)
                stranger.raw(b"\x91" * 100_000)
            ended = ui.wait_until_stopped()
            assert ui.get("/bakeoff/workers").json().keys() == before.keys()
            assert [stranger.heard() for stranger in strangers] == [[], [], [], []]
            wait_for(lambda: ui.status()["refused"].get("strangers", 0) >= 3, what="the count of strangers")
            for stranger in strangers:
                stranger.leave()
    assert ended["complete"]
    assert not ended["lost_workers"]
    records, broken = read_records(tmp_path / "runs" / run_id / "requests.jsonl")
    assert not broken
    assert {r.worker for r in records} == {worker}
    assert len({(r.user, r.index) for r in records}) == len(records) == ended["received"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "runs"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [run_id]
    assert KEY not in (tmp_path / "log").read_text()


def test_no_frame_of_an_invited_worker_ends_the_masters_loop():
    command = [sys.executable, "-m", "benchmarks.security", "frames", "--inputs", "2000"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "frames: 2,000 inputs" in done.stdout


def test_a_worker_without_the_key_ends_the_block_and_names_the_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEY)
    with FaultServer(in_process=False, fault="normal?gap_ms=5") as server:
        seats = [Seat(name="a", base_url=server.url, api_key_env="MY_KEY")]
        locust = OwnLocust(seats, tmp_path / "runs", tmp_path / "log", workers=1)
        start = locust._start

        def without_key(command: list[str]) -> subprocess.Popen[bytes]:
            if "--worker" in command:
                del locust._environment["MY_KEY"]
            return start(command)

        monkeypatch.setattr(locust, "_start", without_key)
        with locust as client:
            ui = Ui(client.url, tmp_path / "runs", tmp_path / "log")
            ui.start(requests="40")
            ended = ui.wait_until_stopped()
    assert not ended["complete"]
    assert "MY_KEY" in str(ended["problem"])
