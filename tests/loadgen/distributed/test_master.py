"""The Locust master and the locustfile on their own: what they say when something they need is missing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import psutil
import pytest
import requests

from loadgen.distributed.locust_process import LOCUSTFILE, PARENT_VARIABLE, OwnLocust
from loadgen.endpoints.seats import Seat
from loadgen.machine import unused_ports
from tests.fault_server import FaultServer
from tests.loadgen.bench.races import LIMIT_S, TOP, alive, environment, wait_for
from tests.loadgen.distributed.test_web_ui import FORM, Ui

pytestmark = pytest.mark.integration

LOCUST = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE)]


@contextlib.contextmanager
def lone_master(tmp_path, **variables):
    """A master without workers; yields its process and URL."""
    web, bind = unused_ports(2)
    command = [*LOCUST, "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", str(bind)]
    command += ["--web-host", "127.0.0.1", "--web-port", str(web)]
    env = {**environment(), "BAKEOFF_RUNS_DIR": str(tmp_path / "runs"), **variables}
    with (tmp_path / "log").open("wb") as log:
        process = psutil.Popen(command, cwd=TOP, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{web}"

    def up() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{url}/bakeoff/block", timeout=60).ok
        return False

    try:
        wait_for(up, what="the master")
        yield process, url
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_master_without_workers_says_so(tmp_path):
    with lone_master(tmp_path) as (_, url):
        status = requests.get(f"{url}/bakeoff/block", timeout=60).json()
        assert (status["state"], status["workers"], status["block"]) == ("ready", 0, None)
        reply = requests.post(f"{url}/swarm", data={**FORM, "engine": "none"}, timeout=60).json()
    assert reply["success"] is False
    assert "No Locust worker" in reply["message"]
    assert not (tmp_path / "runs").exists()


def test_master_ends_with_the_process_it_was_told_to_follow(tmp_path):
    # A parent that is gone already, as after a kill -9 in the very moment of the start.
    with lone_master(tmp_path, **{PARENT_VARIABLE: "1"}) as (process, _):
        assert process.wait(LIMIT_S) == 1


def test_locustfile_on_its_own_says_how_it_is_run():
    command = [*LOCUST, "--headless", "--users", "1"]
    done = subprocess.run(command, cwd=TOP, env=environment(), capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode != 0
    assert "bakeoff run" in done.stdout + done.stderr


def test_locust_that_cannot_start_tells_the_end_of_its_log(tmp_path, monkeypatch):
    from loadgen.errors import UserError

    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match="Locust did not start"), OwnLocust([], tmp_path / "runs", tmp_path / "log"):
        pass


def test_stopped_worker_is_not_let_into_the_next_test(tmp_path):
    """A worker that hangs (SIGSTOP) is lost; when it wakes up it must not run on beside the next test."""
    with FaultServer(in_process=False, fault="normal?gap_ms=10") as server:
        seats = [Seat(name="a", base_url=server.url)]
        with OwnLocust(seats, tmp_path / "runs", tmp_path / "log", workers=2) as client:
            ui = Ui(client.url, tmp_path / "runs", tmp_path / "log")
            ui.start(requests="5000")
            wait_for(lambda: ui.status()["measured"] >= 3, what="3 requests")
            workers = [p for p in psutil.Process().children() if "--worker" in p.cmdline()]
            os.kill(workers[0].pid, signal.SIGSTOP)
            lost = ui.wait_until_stopped()
            assert len(lost["lost_workers"]) == 1
            ui.start(requests="300")
            os.kill(workers[0].pid, signal.SIGCONT)
            assert ui.wait_until_stopped()["complete"]
            assert ui.status()["lost_workers"] == []
            wait_for(lambda: not alive(workers[0]), what="the end of the hung worker")
            wait_for(lambda: ui.status()["workers"] == 2, what="a new worker in its place")


def test_more_than_a_worker_can_carry_ends_the_test_with_a_sentence(tmp_path):
    with FaultServer(in_process=False, fault="normal?ttft_ms=20000") as server:
        seats = [Seat(name="a", base_url=server.url, model="fault-model", kind="vllm")]
        with OwnLocust(seats, tmp_path / "runs", tmp_path / "log") as client:
            (worker,) = [p for p in psutil.Process().children() if "--worker" in p.cmdline()]
            worker.rlimit(psutil.RLIMIT_NOFILE, (160, 160))
            ui = Ui(client.url, tmp_path / "runs", tmp_path / "log")
            run_id = ui.start(rate="100", arrival="constant", requests="5000")
            ui.wait_until_stopped()
            run = ui.load(run_id)
    assert run.manifest.status == "failed"
    assert "cannot take part" in run.blocks[0].facts.reason
    assert "cannot carry this load: 96 requests are in flight" in run.blocks[0].facts.reason


DEAL = """
import json, sys
from locust import User
from locust.dispatch import UsersDispatcher
from locust.runners import WorkerNode
from loadgen.distributed.master import in_locusts_order

workers = sys.argv[1:]
dispatcher = UsersDispatcher(worker_nodes=[WorkerNode(id=worker) for worker in workers], user_classes=[User])
dispatcher.new_dispatch(target_user_count=len(workers) + 1, spawn_rate=100)
users = {worker: counts["User"] for worker, counts in list(dispatcher)[-1].items()}
print(json.dumps([(worker, users[worker]) for worker in in_locusts_order(workers)]))
"""


@pytest.mark.parametrize("workers", ["h_1 h_2 h_0", "h1_b h2_a h1_a h2_b h0_c", "big_1 big_0 big_2 small_0"])
def test_seats_are_in_the_order_in_which_locust_gives_users_to_workers(workers):
    command = [sys.executable, "-c", DEAL, *workers.split()]
    done = subprocess.run(
        command, cwd=TOP, env=environment(), capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    dealt = json.loads(done.stdout)
    assert sorted(worker for worker, _ in dealt) == sorted(workers.split())
    assert [users for _, users in dealt] == [2] + [1] * (len(dealt) - 1)
    assert dealt[0][0] == min(workers.split())
