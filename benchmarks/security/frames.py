"""Spoilt frames of an invited worker, over real sockets, to a master that runs a block."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path
from typing import Any

from loadgen.distributed.secret import SECRET_VARIABLE, new_secret

os.environ[SECRET_VARIABLE] = new_secret()

import gevent
import locust
import msgpack
from locust import argument_parser
from locust.env import Environment
from locust.rpc import zmqrpc

from benchmarks.security.mutations import spoil_bytes, spoil_values
from loadgen.client.health import ProbeReport
from loadgen.distributed import messages, sockets
from loadgen.distributed.master import Master
from loadgen.endpoints.endpoint import Endpoint
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.record import RequestRecord
from loadgen.scenario.cell import Cell
from loadgen.traffic.plan import BlockPlan

NAME = "fuzz_1"
AT_ONCE = 500


def plan() -> BlockPlan:
    """A block of this worker's."""
    return BlockPlan(
        **{"run_id": "run", "scenario": "s", "block": "b", "engine": "e", "cell": Cell(4, 2, 2), "requests": None},
        **{"warmup_requests": 1, "seed": "1", "workers": (NAME,)},
        endpoint=Endpoint(name="e", kind="openai", base_url="http://127.0.0.1:1", model="m", api="chat"),
        recipe=PromptRecipe("text", 0, ("a", "b"), (), "nowhere"),
    )


def good_messages() -> list[tuple[str, Any]]:
    """One of each kind that a worker sends."""
    record = RequestRecord(
        **{"run_id": "run", "block": "b", "engine": "e", "model": "m", "cell": plan().cell.id, "api": "chat"},
        **{"worker": NAME, "user": 0, "index": 0, "t_intended": 0, "t_send": 0, "t_done": 20, "wall_offset_ns": 0},
        **{"prompt_tokens_wanted": 4, "output_tokens_wanted": 2, "t_first": 10, "t_last": 20, "events": 2},
        **{"event_offsets_ns": [10, 20], "output_tokens": 2, "prompt_tokens": 4},
    )
    pulse = messages.Pulse(NAME, 1, 2, 0.5, "run", "b", ProbeReport(late=[(1, 2)]), ProbeReport())
    users = {"user_classes_count": {"StreamingUser": 1}, "user_count": 1}
    return [
        ("client_ready", locust.__version__),
        ("heartbeat", {"state": "running", "current_cpu_usage": 1.0, "current_memory_usage": 1}),
        ("stats", {"stats": [], "stats_total": {}, "errors": {}, **users}),
        ("spawning", None),
        ("spawning_complete", users),
        ("exception", {"msg": "m", "traceback": "t"}),
        ("logs", {"worker_id": NAME, "logs": ["x"]}),
        ("client_stopped", None),
        ("quit", None),
        ("locustfile", {"version": locust.__version__}),
        (messages.RECORDS_MESSAGE, {"records": [record.to_dict()]}),
        (messages.PULSE_MESSAGE, pulse.to_dict()),
        (messages.BLOCK_END_MESSAGE, {"worker": NAME, "block": "b", "records": 1}),
        (messages.PROBLEM_MESSAGE, {"worker": NAME, "block": "b", "text": "t"}),
    ]


def frames(count: int, seed: int = 1) -> list[bytes]:
    """So many spoilt frames."""
    source, known = random.Random(seed), good_messages()
    made = []
    for _ in range(count):
        kind, data = source.choice(known)
        good = (kind, data, NAME)
        if source.random() < 0.5:
            made.append(spoil_bytes(source, msgpack.dumps(good)))
        else:
            made.append(msgpack.dumps(spoil_values(source, list(good))))
    return made


def run(count: int) -> dict[str, object]:
    """Send them. Raises AssertionError where the master does not take a good message afterwards."""
    sockets.install()
    environment = Environment(user_classes=[])
    environment.parsed_options = argument_parser.get_parser(default_config_files=[]).parse_args([])
    with tempfile.TemporaryDirectory() as folder:
        runner = environment.create_master_runner("127.0.0.1", 0)
        master = Master(environment, Path(folder))
        master.collector.begin(plan())
        master.door.begin(plan())
        worker = zmqrpc.Client("127.0.0.1", runner.server.port, NAME)
        for number, frame in enumerate(frames(count)):
            worker.socket.send(frame)
            if number % AT_ONCE == 0:
                _take_all(worker)
        _take_all(worker)
        worker.socket.send(msgpack.dumps(("client_ready", locust.__version__, NAME)))
        with gevent.Timeout(20):
            while NAME not in runner.clients:
                gevent.sleep(0.01)
        status = master.status()
        refused, received = dict(sockets.Server.refused), status.received
        worker.close(0)
        runner.quit()
    assert refused.get(sockets.MALFORMED), "nothing was refused: the frames were not spoilt"  # noqa: S101
    return {"refused": refused, "records that counted": received}


def _take_all(worker: Any) -> None:
    """Wait until the master is through with what was sent: it answers a heartbeat of a worker that it knows."""
    worker.socket.send(msgpack.dumps(("client_ready", locust.__version__, NAME)))
    with gevent.Timeout(60):
        while msgpack.loads(worker.socket.recv())[0] != "ack":
            pass
