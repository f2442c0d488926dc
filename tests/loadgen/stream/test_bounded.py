"""Answers without an end: whoever asks hears so in time, and its memory stays what it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from loadgen.hosts.http_probe import get_json, http_status
from loadgen.stream.bounded import MAX_BYTES, BoundedPool, parts
from tests.fault_server import FLOODS, FaultServer

TOP = Path(__file__).resolve().parents[3]
MOST_MB = 400
"""Of a process that asks: its code, and one answer at its largest, several times over."""
ASK = """
import sys
from loadgen.endpoints import asker, endpoint
from loadgen.endpoints.answers import Refused
from loadgen.errors import UserError
from loadgen.hosts.http_probe import get_json, http_status
from loadgen.monitoring.engine_page import PageError
from loadgen.monitoring.page_reader import PageReader

asker.ANSWER_LIMIT_S = endpoint.ANSWER_LIMIT_S = endpoint.INSPECT_LIMIT_S = LIMIT = 0.3
at = endpoint.Endpoint(name="a", kind="vllm", base_url=sys.argv[1], model="m", api="chat")
for stream in (False, True):
    asking = asker.Asker(at)
    try:
        (asking.stream if stream else asking.ask)("one", {"max_tokens": 2})
        print("the SDK's: an answer")
    except Refused as refused:
        print("the SDK's:", refused)
for ask in (lambda: endpoint.inspect_endpoint(sys.argv[1]), lambda: at.client().call("POST", "/tokenize", {}, LIMIT)):
    try:
        ask()
        print("ours: an answer")
    except UserError as error:
        print("ours:", error)
print("ours:", at.client().try_text("/metrics"))
try:
    at.client().post(at.route(), {}, LIMIT)
except UserError as error:
    print("ours:", error)
print("probe:", get_json(sys.argv[1], LIMIT), http_status(sys.argv[1], LIMIT))
try:
    PageReader(sys.argv[1]).read()
    print("page: an answer")
except PageError as error:
    print("page:", error)
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


@pytest.mark.parametrize("flood", FLOODS)
def test_an_answer_without_an_end_ends(flood):
    with FaultServer(fault=f"flood:{flood}") as server:
        done = subprocess.run(
            [sys.executable, "-c", ASK, server.url], cwd=TOP, capture_output=True, text=True, timeout=300, check=False
        )
    assert done.returncode == 0, done.stderr
    *told, peak = done.stdout.splitlines()
    assert int(peak) < MOST_MB << 10
    assert len(told) >= 7 and not any("an answer" in line for line in told), told
    assert "ours: None" in told and "probe: None None" in told
    assert not done.stderr


def test_a_long_list_of_models_is_an_answer():
    models = [{"id": "m" * 50_000 + str(number)} for number in range(200)]
    with FaultServer(models=models) as server:
        assert http_status(f"{server.url}/v1/models", 60) == 200
        assert len(get_json(f"{server.url}/v1/models", 60)["data"]) == 200


def test_what_is_whole_keeps_its_connection():
    with FaultServer() as server, BoundedPool() as pool:
        for _ in range(3):
            answer = pool.ask("GET", f"{server.url}/v1/models", 30)
            assert answer.status == 200 and b"fault-model" in b"".join(parts(answer, MAX_BYTES))
        assert server.connections == 1
        pool.ask("GET", f"{server.url}/v1/models", 30).close()
        assert next(parts(pool.ask("GET", f"{server.url}/health", 30), MAX_BYTES))
