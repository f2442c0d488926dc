"""Lives of single containers in a race and between races: engines, workers, exporters and the master that go away."""

import re
import shlex
import shutil
import subprocess

import pytest

from loadgen.settings import Paths
from tests.docker.commands import step
from tests.docker.engine import CHECKOUT
from tests.docker.sim_stack import ENGINES, health, in_mid_block, newest_run, opened, wait_for

pytestmark = pytest.mark.docker


def test_an_engine_that_is_stopped_in_mid_block_is_started_again_and_the_run_goes_on(checkout, client, long_race):
    with step("a race whose engine is killed"), checkout.making("bench", f"SCENARIO={long_race}") as bench:
        killed = wait_for(lambda: in_mid_block(checkout), what="a block")
        checkout.containers(client, killed)[0].kill()
        text, _ = bench.communicate(timeout=600)
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
    with step("a race whose worker is killed"), checkout.racing(long_race) as bench:
        wait_for(lambda: in_mid_block(checkout), what="a block")
        checkout.containers(client, "locust-worker")[0].kill()
        text, _ = bench.communicate(timeout=600)
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
    wait_for(lambda: len(checkout.get("LOCUST", "/bakeoff/workers")) == 2, what="that both workers are there")
    worker = checkout.containers(client, "locust-worker")[0]
    before = restarts(worker)
    worker.exec_run(["python3", "-c", "import os; os.kill(-1, 9)"])  # all of its processes, from inside
    wait_for(lambda: restarts(worker) > before, what="that Docker starts it again")
    wait_for(lambda: len(checkout.get("LOCUST", "/bakeoff/workers")) == 2, what="that the master has it again")


def test_after_a_master_was_away_the_printed_command_brings_it_up_and_goes_on(checkout, client, one_engine):
    """For so long that its workers are unhealthy, though nothing is wrong with them but that."""
    with step("a race whose master is killed"), checkout.making("bench", f"SCENARIO={one_engine}") as bench:
        wait_for(lambda: in_mid_block(checkout), what="a block")
        checkout.containers(client, "locust")[0].kill()
        text, _ = bench.communicate(timeout=600)
    run = newest_run(checkout)
    data = run.load()
    assert data.manifest.status == "failed", text
    assert "does not answer" in data.manifest.messages[-1]
    before = {(each.block, each.worker, each.user, each.index) for block in data.blocks for each in block.records}
    assert len(before) >= 10
    go_on = re.search(r"go on with `make (bench RUN=[^`]+)`", " ".join(text.split()))
    assert go_on, text
    with step("until the workers are unhealthy"):
        workers = checkout.containers(client, "locust-worker")
        wait_for(lambda: {health(each) for each in workers} == {"unhealthy"}, what="that the workers are unhealthy")
    with step("make bench RUN=..., all workers unhealthy"):
        resumed = checkout.make(*shlex.split(go_on[1]))
    assert resumed.raced, resumed.text
    data = newest_run(checkout).load()
    assert data.folder.name == run.path.name
    assert data.manifest.status == "complete", resumed.text
    assert {each.engine for each in data.manifest.blocks if each.status == "complete"} == {"sim-vllm"}
    records = {(each.block, each.worker, each.user, each.index) for block in data.blocks for each in block.records}
    assert before <= records


@pytest.fixture(scope="module")
def lan(checkout, client, brought_up, tmp_path_factory):
    """The stack opened to other machines; a worker on one, started as the documentation says."""
    open_one = opened(checkout, client)
    with step("make up, with BAKEOFF_LAN_ADDRESS"):
        up = open_one.make("up", "WORKERS=2", "ENGINE=none")
    assert up.status == 0, up.text
    folder = tmp_path_factory.mktemp("elsewhere")
    secret = folder / "traffic-secret"
    shutil.copy(Paths(checkout.folder).traffic_secret, secret)
    shutil.chown(secret, 10001, 10001)
    page = (CHECKOUT / "docs" / "containers.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"```sh\nhost=10\.0\.0\.5; (docker run .*?)```", page, re.DOTALL)
    name = f"{checkout.project}-elsewhere"
    for documented, here in {
        "$host": open_one.environment["BAKEOFF_LAN_ADDRESS"],
        "bakeoff-worker": name,
        "--add-host vllm:": "--add-host sim-vllm:",
        "--add-host ksana:": "--add-host sim-ksana:",
    }.items():
        assert documented in command
        command = command.replace(documented, here)
    subprocess.run(["bash", "-c", command], cwd=folder, env=dict(checkout.environment), check=True, timeout=300)
    worker = client.containers.get(name)
    try:
        wait_for(lambda: is_there(checkout, worker), what="that the worker from elsewhere is there")
        yield worker
    finally:
        worker.remove(force=True)


def is_there(checkout, worker):
    """Whether the master has three workers that are ready, this container's among them."""
    known = checkout.get("LOCUST", "/bakeoff/workers")
    ready = [name for name, state in known.items() if state == "ready"]
    return len(ready) == 3 and any(name.startswith(f"{worker.id[:12]}_") for name in ready)


def test_a_master_that_is_replaced_three_times_has_its_workers_again(checkout, client, lan):
    """Each time it tells them to quit, and Docker starts them anew, here and elsewhere."""
    elsewhere, open_one = lan, opened(checkout, client)
    masters = [checkout.containers(client, "locust")[0].id]  # the first of three: it was not open before
    for each in (checkout, open_one):
        with step("make up, with another BAKEOFF_LAN_ADDRESS"):
            up = each.make("up", "WORKERS=2", "ENGINE=none")
        assert up.status == 0, up.text
        masters.append(checkout.containers(client, "locust")[0].id)
    assert len(set(masters)) == 3
    assert min(each.attrs["RestartCount"] for each in checkout.containers(client, "locust-worker")) >= 3
    wait_for(lambda: is_there(checkout, elsewhere), what="that the worker from elsewhere is back")


def test_a_lost_worker_from_elsewhere_is_back_for_the_next_attempt_and_a_dead_exporter_is_told(
    checkout, client, lan, one_engine
):
    """The worker was cut off for seconds, and told to quit when it could be heard again."""
    elsewhere = lan
    wait_for(lambda: is_there(checkout, elsewhere), what="that the worker from elsewhere is there")
    with step("a race whose exporter dies, and whose worker is cut off"), checkout.racing(one_engine) as bench:
        wait_for(lambda: in_mid_block(checkout), what="a block")
        before = restarts(elsewhere)
        elsewhere.pause()
        checkout.containers(client, "engine-exporter")[0].kill()
        wait_for(lambda: len(checkout.get("LOCUST", "/bakeoff/workers")) == 2, what="that the worker is lost")
        elsewhere.unpause()
        text, _ = bench.communicate(timeout=600)
    run = newest_run(checkout)
    data = run.load()
    assert [each.status for each in data.manifest.blocks] == ["failed", "complete"], text
    assert re.search(f"{elsewhere.id[:12]}_.* was lost in mid-block", data.manifest.blocks[0].reason)
    assert len({each.worker for each in data.blocks[1].records}) == 3
    assert restarts(elsewhere) == before + 1
    assert not any("are left" in each for each in data.manifest.messages)

    (told,) = [each for each in data.manifest.messages if each.startswith("engine-exporter gave no metrics for ")]
    assert told in " ".join(text.split())
    assert checkout.make("report").status == 0
    assert told in (run.path / "report.md").read_text(encoding="utf-8")


def test_a_run_goes_on_without_a_worker_from_elsewhere_that_was_stopped_and_says_so(checkout, lan, one_engine):
    elsewhere = lan
    wait_for(lambda: is_there(checkout, elsewhere), what="that the worker from elsewhere is there")
    with step("a race whose worker elsewhere is stopped"), checkout.racing(one_engine) as bench:
        wait_for(lambda: in_mid_block(checkout), what="a block")
        elsewhere.stop()
        text, _ = bench.communicate(timeout=600)
    run = newest_run(checkout).load()
    assert [each.status for each in run.manifest.blocks] == ["failed", "complete"], text
    assert "Of 3 Locust workers 2 are left: the run goes on with these." in run.manifest.messages
    assert "Of 3 Locust workers 2 are left: the run goes on with these." in text
    assert len({each.worker for each in run.blocks[1].records}) == 2


def restarts(container):
    """How often Docker has started it anew."""
    container.reload()
    return container.attrs["RestartCount"]
