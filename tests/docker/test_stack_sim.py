"""The container stack with two simulated engines and two Locust workers, as `make` brings it up, races and ends it."""

import json
import os
import shutil
import time

import psutil
import pytest
import requests

from loadgen.runs.folder import RunFolder
from tests.docker.checkout import copy_checkout
from tests.docker.commands import step

pytestmark = pytest.mark.docker

ENGINES = {"sim-vllm", "sim-ksana"}
SERVICES = {"locust", "locust-worker", "engine-exporter", "ksana-exporter", "prometheus", *ENGINES}


def wait_for(get, limit_s=60.0, what="it"):
    deadline = time.monotonic() + limit_s
    while not (found := get()):
        assert time.monotonic() < deadline, f"{what} did not happen within {limit_s:g} s"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def checkout(engine, client, base_images, site_build_arguments, tmp_path_factory):
    settings = {**base_images, **site_build_arguments, "BAKEOFF_BUILD_NETWORK": "", "GRAFANA_IMAGE": "none"}
    copy = copy_checkout(tmp_path_factory.mktemp("sim"), engine, f"bakeoff-test-sim-{os.getpid()}", settings)
    yield copy
    copy.make("clean")
    shutil.rmtree(copy.folder)


@pytest.fixture(scope="module")
def brought_up(checkout):
    with step("make up PROFILE=sim"):
        done = checkout.make("up", "PROFILE=sim", "RUNTIME=docker", "WORKERS=2")
    assert done.status == 0, done.text
    return done


@pytest.fixture(scope="module")
def raced(checkout, brought_up):
    """One race of both engines, and its run."""
    name = checkout.scenario("race", prompt_tokens=[64], load={"concurrency": [1, 4]}, requests=20)
    with step("make bench, two simulated engines"):
        done = checkout.make("bench", f"SCENARIO={name}")
    assert done.raced, done.text
    return done


def newest_run(checkout):
    return RunFolder.find(checkout.folder / "runs", None)


def health(container):
    container.reload()
    return container.attrs["State"]["Health"]["Status"]


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
            wait_for(lambda each=container: health(each) == "healthy", 30, f"that {container.name} is healthy")
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

    assert wait_for(counted, 15, f"that both workers' counts are in Prometheus as {by_worker}")
    assert checkout.query("sum by (engine) (bakeoff_client_requests_total)") == by_engine
    assert checkout.query("sum(bakeoff_client_requests_total)") == {"": len(records)}
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


def status(checkout):
    try:
        return checkout.get("LOCUST", "/bakeoff/block")
    except requests.RequestException:
        return {"state": "gone"}


def in_mid_block(checkout):
    """The engine that is raced now, when a good part of its block is left."""
    told = status(checkout)
    running = told["state"] == "running" and 10 <= told["received"] < 100
    return told["block"].partition(".")[0] if running else None


@pytest.fixture(scope="module")
def long_race(checkout, raced):
    """A scenario whose blocks last long enough to break something in them."""
    return checkout.scenario("long", prompt_tokens=[64], load={"concurrency": [4]}, requests=150)


def test_an_engine_that_is_stopped_in_mid_block_is_started_again_and_the_run_goes_on(checkout, client, long_race):
    with step("a race whose engine is killed"), checkout.making("bench", f"SCENARIO={long_race}") as bench:
        killed = wait_for(lambda: in_mid_block(checkout), 240, "a block")
        checkout.containers(client, killed)[0].kill()
        text, _ = bench.communicate(timeout=240)
    run = newest_run(checkout).load()
    ended = [(facts.record_id, facts.status) for facts in run.manifest.blocks]
    assert ended == [
        (f"{killed}.p0064-o0016-c004.r1", "failed"),
        (f"{killed}.p0064-o0016-c004.r1.a2", "complete"),
        (f"{(ENGINES - {killed}).pop()}.p0064-o0016-c004.r1", "complete"),
    ], text
    reason = run.manifest.blocks[0].reason
    assert f"{killed} died in mid-block" in reason
    assert "signal 9" in reason or "SIGKILL" in reason, reason
    assert "It is run once more." in text
    # Every block was completed, and requests failed: documented as 1, which make tells as 2.
    assert bench.returncode == 2, text


def test_a_run_goes_on_when_a_worker_is_killed_and_says_so(checkout, client, long_race):
    with step("a race whose worker is killed"), checkout.making("bench", f"SCENARIO={long_race}") as bench:
        wait_for(lambda: in_mid_block(checkout), 240, "a block")
        checkout.containers(client, "locust-worker")[0].kill()
        text, _ = bench.communicate(timeout=240)
    run = newest_run(checkout).load()
    first, second, *others = run.manifest.blocks
    assert (first.status, second.status, {each.status for each in others}) == ("failed", "complete", {"complete"}), text
    assert "was lost in mid-block" in first.reason
    assert "Of 2 Locust workers 1 are left: the run goes on with these." in text
    assert "Of 2 Locust workers 1 are left: the run goes on with these." in run.manifest.messages
    last = [block for block in run.blocks if block.facts.status == "complete"]
    assert [len({record.worker for record in block.records}) for block in last] == [1, 1]


def test_a_worker_that_crashes_is_started_again(checkout, client, long_race):
    checkout.make("up", "WORKERS=2", "ENGINE=none")
    wait_for(lambda: len(checkout.get("LOCUST", "/bakeoff/workers")) == 2, 60, "that both workers are there")
    worker = checkout.containers(client, "locust-worker")[0]
    worker.exec_run(["python3", "-c", "import os; os.kill(-1, 9)"])  # all of its processes, from inside
    wait_for(lambda: worker.reload() or worker.attrs["RestartCount"] == 1, 30, "that Docker starts it again")
    wait_for(lambda: len(checkout.get("LOCUST", "/bakeoff/workers")) == 2, 60, "that the master has it again")


def test_down_leaves_volumes_alone_and_clean_leaves_nothing(checkout, client, brought_up):
    ids = [container.id for container in checkout.containers(client)]
    down = checkout.make("down")
    assert down.status == 0, down.text
    left = checkout.left(client)
    assert (left["containers"], left["networks"]) == ([], [])
    assert left["volumes"] == [f"{checkout.project}_prometheus-data"]
    assert [port for port in ("LOCUST", "PROMETHEUS", "SIM_VLLM") if answers(checkout.url(port))] == []
    running = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert [line for line in running if any(each in line for each in ids) or str(checkout.folder) in line] == []
    again = checkout.make("down")
    assert again.status == 0, again.text

    clean = checkout.make("clean")
    assert clean.status == 0, clean.text
    assert checkout.left(client) == {"containers": [], "networks": [], "volumes": []}
    assert newest_run(checkout).path.is_dir()


def answers(url):
    try:
        requests.get(url, timeout=2)
    except requests.RequestException:
        return False
    return True
