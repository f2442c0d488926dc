"""The container stack with two simulated engines and two Locust workers, as `make` brings it up and races it."""

import json

import psutil
import pytest

from tests.docker.sim_stack import ENGINES, health, newest_run, wait_for

pytestmark = pytest.mark.docker

SERVICES = {"locust", "locust-worker", "engine-exporter", "ksana-exporter", "prometheus", *ENGINES}


def test_up_says_what_it_chose_and_all_is_healthy(checkout, client, brought_up):
    assert "containers (RUNTIME=docker), profile sim (as asked)" in brought_up.text
    assert "sim-vllm: healthy" in brought_up.text
    found = {}
    for container in checkout.containers(client):
        found.setdefault(container.labels["com.docker.compose.service"], []).append(container)
    assert set(found) == SERVICES
    assert len(found["locust-worker"]) == 2
    for service in SERVICES - {"sim-ksana"}:
        for container in found[service]:
            wait_for(lambda each=container: health(each) == "healthy", what=f"that {container.name} is healthy")
    # Engines take turns: the other is made, not started.
    assert found["sim-ksana"][0].status == "created"


def test_ports_are_on_loopback_alone(checkout, brought_up):
    listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    for name in ("LOCUST", "PROMETHEUS", "ENGINE_EXPORTER", "SIM_VLLM"):
        port = int(checkout.environment[f"BAKEOFF_{name}_PORT"])
        assert {each.laddr.ip for each in listening if each.laddr.port == port} == {"127.0.0.1"}, name


def test_no_process_runs_as_root_or_with_a_capability(checkout, client, brought_up):
    for container in checkout.containers(client):
        if container.status == "running":
            told = container.exec_run(["cat", "/proc/1/status"]).output.decode()
            status = {name: value.split() for name, _, value in (line.partition(":") for line in told.splitlines())}
            assert "0" not in status["Uid"], container.name
            assert {int(status[name][0], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}, container.name
            assert status["NoNewPrivs"] == ["1"], container.name


def test_both_engines_are_raced_by_both_workers(checkout, raced):
    run = newest_run(checkout).load()
    assert run.manifest.status == "complete"
    assert {(facts.engine, facts.cell) for facts in run.manifest.blocks} == {
        (engine, cell) for engine in ENGINES for cell in ("p0064-o0016-c001", "p0064-o0016-c004")
    }
    for block in run.blocks:
        assert len(block.measured) == 20
        assert all(record.ok for record in block.measured)
        # One user is one worker's.
        assert len({record.worker for record in block.records}) == min(block.facts.users, 2)
    assert run.bad_lines == []
    assert not any("confirmed" in message for message in run.manifest.messages)


def test_the_race_goes_by_the_stacks_own_network_and_says_how_engines_ran(checkout, raced):
    manifest = newest_run(checkout).load().manifest
    assert {each.name: each.base_url for each in manifest.engines} == {
        "sim-vllm": "http://sim-vllm:8111",
        "sim-ksana": "http://sim-ksana:8112",
    }
    assert manifest.stack["runtime"] == "docker"
    text = newest_run(checkout).manifest_path.read_text(encoding="utf-8")
    password = (checkout.folder / ".env").read_text(encoding="utf-8").strip().rpartition("=")[2]
    assert len(password) >= 20
    assert password not in text


def test_the_runs_files_are_not_roots(checkout, raced):
    for path in newest_run(checkout).path.glob("requests.jsonl"):
        assert path.stat().st_uid != 0


def test_records_are_the_sum_of_what_both_workers_counted(checkout, raced):
    """Workers count content events themselves, and the master counts records: both by way of Prometheus."""
    run = newest_run(checkout).load()
    records = [record for block in run.blocks for record in block.records]
    by_worker, by_engine = {}, {}
    for record in records:
        by_worker[record.worker] = by_worker.get(record.worker, 0) + record.events
        by_engine[record.engine] = by_engine.get(record.engine, 0) + 1
    assert len(by_worker) == 2

    def counted():
        told = checkout.query("sum by (worker) (bakeoff_client_worker_events_total)")
        return told if told == by_worker else None

    assert wait_for(counted, what=f"that both workers' counts are in Prometheus as {by_worker}")
    requests = "sum by (engine) (bakeoff_client_requests_total)"
    assert wait_for(lambda: checkout.query(requests) == by_engine, what=f"that the master's are, as {by_engine}")
    assert checkout.query("bakeoff_client_workers") is not None
    assert list(checkout.query("bakeoff_client_workers").values()) == [2]


def test_prometheus_has_the_engines_own_series(checkout, raced):
    tokens = checkout.query("sum by (engine) (max_over_time(vllm:generation_tokens_total[10m]))")
    run = newest_run(checkout).load()
    answered = sum(r.output_tokens or 0 for b in run.blocks if b.facts.engine == "sim-vllm" for r in b.records)
    # The engine answered the parity check and the tokens' probe too, and the last second may not have been scraped.
    assert tokens["sim-vllm"] > answered / 2
    # KsanaLLM pushes its metrics to an exporter.
    pushed = checkout.query("sum by (engine) (max_over_time(ksana_time_to_first_token_seconds_count[10m]))")
    assert pushed["sim-ksana"] > 0
    up = checkout.query("sum by (job) (max_over_time(up[10m]))")
    assert {job for job, value in up.items() if value} >= {
        "bakeoff-client",
        "engine-exporter",
        "ksana-exporter",
        "sim-vllm",
    }


def test_memory_and_cpu_are_those_of_the_engines_containers(checkout, raced):
    """Each is limited to 512 MiB."""
    memory = checkout.query('max by (engine) (max_over_time(bakeoff_engine_memory_bytes{kind="container"}[10m]))')
    assert set(memory) == ENGINES
    assert all(1 << 20 < value <= 512 << 20 for value in memory.values()), memory
    cpu = checkout.query("max by (engine) (max_over_time(bakeoff_engine_cpu_seconds_total[10m]))")
    assert set(cpu) == ENGINES
    assert all(value > 0.1 for value in cpu.values()), cpu


def test_the_report_has_both_engines(checkout, raced):
    done = checkout.make("report")
    assert done.status == 0, done.text
    folder = newest_run(checkout).path
    for name in ("report.md", "report.html"):
        text = (folder / name).read_text(encoding="utf-8")
        assert all(engine in text for engine in ENGINES), name
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))
