"""Two workers share a block out: the master keeps and counts the sum of what both did, and the engine agrees."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from loadgen.distributed.locust_process import OwnLocust
from loadgen.endpoints.seats import Seat
from loadgen.metrics.definitions import tpot_ms
from loadgen.runs.folder import RunFolder, read_records
from tests.fault_server import FaultServer
from tests.loadgen.bench.races import LIMIT_S, wait_for
from tests.loadgen.distributed.test_web_ui import Ui

pytestmark = pytest.mark.integration


def test_the_master_has_what_both_workers_did(tmp_path):
    log = tmp_path / "asked.jsonl"
    with FaultServer(in_process=False, log=log, fault="normal?gap_ms=60") as server:
        seats = [Seat(name="a", base_url=server.url)]
        with OwnLocust(seats, tmp_path / "runs", tmp_path / "locust.log", workers=2) as client:
            assert client.wait_for_workers(2, LIMIT_S) == 2
            ui = Ui(client.url, tmp_path / "runs", tmp_path / "locust.log")
            run_id = ui.start(user_count="4", spawn_rate="4", requests="60")
            ended = ui.wait_until_stopped()
            page = requests.get(f"{client.url}/metrics", timeout=60).text
    samples = [s for family in text_string_to_metric_families(page) for s in family.samples]

    def total(name: str, **labels: str) -> float:
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    records, broken = read_records(tmp_path / "runs" / run_id / "requests.jsonl")
    assert not broken
    by_worker = collections.Counter(record.worker for record in records)
    assert len(by_worker) == 2, "each worker has a name of its own and a share of the block"
    # What each says that it sent has arrived, and nothing else.
    assert ended["ended_workers"] == dict(by_worker)
    assert len({(r.worker, r.user, r.index) for r in records}) == len(records)
    # The engine was asked as often as there are records (besides the probes for token counts, which do not stream).
    prompts = collections.Counter(prompts_in(log))
    assert prompts.total() == len(records)
    assert set(prompts.values()) == {1}, "the workers do not repeat each other's prompts"
    # The metrics are the sum over both.
    fine = [r for r in records if r.ok]
    assert total("bakeoff_client_requests_total") == len(records)
    assert total("bakeoff_client_requests_total", outcome="ok") == len(fine) >= 60
    assert total("bakeoff_client_output_tokens_total") == sum(r.output_tokens or 0 for r in records)
    for kind in ("ttft", "e2e"):
        assert total(f"bakeoff_client_{kind}_seconds_count") == len(fine)
    # Where two tokens are all, and a busy machine read both at once, there is none.
    assert total("bakeoff_client_tpot_seconds_count") == sum(tpot_ms(r) is not None for r in fine) > 0
    assert total("bakeoff_client_itl_seconds_count") == sum(r.events - 1 for r in fine)
    for worker in by_worker:
        own = [r for r in records if r.worker == worker]
        assert total("bakeoff_client_read_lag_seconds_count", worker=worker) == sum(len(r.read_lags_ns) for r in own)
    assert total("bakeoff_client_workers") == 2


def test_both_engines_of_a_pair_get_the_same_prompts_when_a_worker_is_replaced_in_between(tmp_path):
    logs = {name: tmp_path / f"{name}.jsonl" for name in "ab"}
    with (
        FaultServer(in_process=False, log=logs["a"], fault="normal?gap_ms=5") as a,
        FaultServer(in_process=False, log=logs["b"], fault="normal?gap_ms=5") as b,
    ):
        seats = [Seat(name="a", base_url=a.url), Seat(name="b", base_url=b.url)]
        with OwnLocust(seats, tmp_path / "runs", tmp_path / "locust.log", workers=2) as client:
            ui = Ui(client.url, tmp_path / "runs", tmp_path / "locust.log")
            block = {"user_count": "2", "spawn_rate": "2", "requests": "200", "seed": "7/a-cell/1"}
            ui.start(engine="a", **block)
            ui.wait_until_stopped()
            before = set(ui.get("/bakeoff/workers").json())
            next(p for p in psutil.Process().children() if "--worker" in p.cmdline()).kill()

            def replaced() -> bool:
                ready = {name for name, state in ui.get("/bakeoff/workers").json().items() if state == "ready"}
                return len(ready) == 2 and ready != before

            wait_for(replaced, what="another worker in the place of the one that was killed")
            ui.start(engine="b", **block)
            ui.wait_until_stopped()
    sent = {name: prompts_in(log) for name, log in logs.items()}
    # How many each worker sends is a matter of speed, but every one sends a dozen, and in the same order.
    assert set(sent["a"][:12]) <= set(sent["b"])
    assert set(sent["b"][:12]) <= set(sent["a"])


def test_one_worker_sends_all_batches_and_the_other_stands_by(tmp_path):
    log = tmp_path / "asked.jsonl"
    with FaultServer(in_process=False, log=log, fault="normal?ttft_ms=400&gap_ms=20") as server:
        seats = [Seat(name="a", base_url=server.url)]
        with OwnLocust(seats, tmp_path / "runs", tmp_path / "locust.log", workers=2) as client:
            assert client.wait_for_workers(2, LIMIT_S) == 2
            ui = Ui(client.url, tmp_path / "runs", tmp_path / "locust.log")
            run_id = ui.start(user_count="1", spawn_rate="1", batch="3", requests="8")
            ended = ui.wait_until_stopped()
            row = ui.get("/stats/requests").json()["extended_stats"][0]["data"][0]
            page = ui.get("/metrics").text
    data = RunFolder(tmp_path / "runs" / run_id).load()
    (block,) = data.blocks
    assert block.facts.status == "complete"
    assert (block.facts.batch, block.facts.measured_requests, block.facts.users) == (3, 9, 0)
    assert sorted(ended["ended_workers"].values()) == [0, 12]
    records = block.records
    assert len({r.worker for r in records}) == 1, "one clock sends a batch and times it"
    assert len({r.user for r in records}) == 3
    ends = 0
    for number in range(4):
        own = [r for r in records if r.index == number]
        assert len(own) == 3
        assert min(r.t_send for r in own) >= ends, "none is sent before all of the last batch have ended"
        assert max(r.t_send for r in own) < min(r.t_first or 0 for r in own)
        ends = max(r.t_done for r in own)
    assert [r.index for r in block.measured] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    prompts = prompts_in(log)
    assert len(set(prompts)) == len(prompts) == 12
    assert (row["load"], row["cell"], row["requests"]) == ("batch 3", "p0024-o0006-b003", 9)
    assert 'cell="p0024-o0006-b003"' in page


def prompts_in(log: Path) -> list[str]:
    """The streamed prompts that a server was sent, in the order they came, without the question what it needs."""
    bodies = [json.loads(line) for line in log.read_text().splitlines()]
    prompts = [body["messages"][0]["content"] for body in bodies if body["stream"]]
    return [prompt for prompt in prompts if prompt != "Hello"]
