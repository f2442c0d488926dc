"""A stranger in an engine's container, knocking all the time: whom he reaches, and what a race is with him."""

import json
import re
import statistics
from pathlib import Path

import msgpack
import pytest

from loadgen.runs.folder import RunFolder
from tests.docker import stranger
from tests.docker.commands import note, step
from tests.docker.sim_stack import gateway, newest_run, opened, wait_for
from tests.loadgen.records import record

pytestmark = pytest.mark.docker

GUARDED = ("locust", "engine-exporter", "ksana-exporter", "prometheus")
PORTS = (5557, 8089, 9090, 9101, 9103)
RUN, WORKER = "20260101-000000-race", "stranger_1"
MESSAGES = [
    ("client_ready", "2.47.0", WORKER),
    ("bakeoff_records", {"records": [record(0, (1000, 2000), run_id=RUN, worker=WORKER).to_dict()]}, WORKER),
    ("quit", None, WORKER),
]


@pytest.fixture
def knocking(checkout, client, raced):
    """The checkout, open to other machines as well, and a container as KsanaLLM's is, in which he is at it."""
    open_one = opened(checkout, client)
    with step("make up, with BAKEOFF_LAN_ADDRESS"):
        up = open_one.make("up", "WORKERS=2", "ENGINE=none")
    assert up.status == 0, up.text
    guarded = [each for service in GUARDED for each in checkout.containers(client, service)]
    inside = [net["IPAddress"] for each in guarded for net in each.attrs["NetworkSettings"]["Networks"].values()]
    published = [int(checkout.environment[f"BAKEOFF_{name}_PORT"]) for name in ("LOCUST", "PROMETHEUS")]
    published += [int(checkout.environment[f"BAKEOFF_{name}_PORT"]) for name in ("ENGINE_EXPORTER", "KSANA_EXPORTER")]
    networks = [client.networks.get(f"{checkout.project}_{name}") for name in ("engines", "pushes")]
    lan = open_one.environment["BAKEOFF_LAN_ADDRESS"]
    told = {
        "names": [
            *GUARDED,
            *(f"{name}.control" for name in GUARDED),
            *inside,
            lan,
            *(gateway(one.attrs) for one in networks),
        ],
        "ports": [*PORTS, *published],
        "doors": [f"{lan}:5557", "ksana-exporter:9103"],
        "messages": [msgpack.dumps(each).hex() for each in MESSAGES],
    }
    container = client.containers.create(
        checkout.containers(client, "sim-ksana")[0].image,
        entrypoint=["python", "-c", Path(stranger.__file__).read_text(encoding="utf-8")],
        command=[json.dumps(told)],
        network=networks[0].name,
        name=f"{checkout.project}-stranger",
        read_only=True,
        cap_drop=["ALL"],
        init=True,
    )
    try:
        networks[1].connect(container)
        container.start()
        yield open_one, container
    finally:
        container.remove(force=True)


def test_a_race_with_a_stranger_knocking_is_as_one_without(checkout, client, knocking):
    open_one, container = knocking
    without = RunFolder(max((checkout.folder / "runs").glob("*-race"))).load()
    reached = json.loads(wait_for(lambda: container.logs().decode().splitlines(), what="that he has looked around")[0])
    # Where engines are to push, and what `BAKEOFF_LAN_ADDRESS` opens for workers elsewhere.
    pushes = f"{checkout.project}_pushes"
    (exporter,) = checkout.containers(client, "ksana-exporter")
    address = exporter.attrs["NetworkSettings"]["Networks"][pushes]["IPAddress"]
    lan = open_one.environment["BAKEOFF_LAN_ADDRESS"]
    assert sorted(reached) == sorted(["ksana-exporter:9103", f"{address}:9103", f"{lan}:5557"])

    name = checkout.scenario("knocked", prompt_tokens=[64], load={"concurrency": [4]}, requests=20)
    with step("a race with a stranger knocking"), checkout.racing(name) as bench:
        text, _ = bench.communicate(timeout=600)
    container.reload()
    assert container.status == "running", container.logs().decode()
    run = newest_run(checkout).load()
    assert run.manifest.status == "complete" and run.bad_lines == [], text
    ready = checkout.get("LOCUST", "/bakeoff/workers")
    assert {each.worker for block in run.blocks for each in block.records} == ready.keys() and len(ready) == 2
    for block in run.blocks:
        assert [(each.ok, each.output_tokens) for each in block.measured] == [(True, 16)] * 20
        assert len({(each.worker, each.user, each.index) for each in block.records}) == len(block.records)
    (told,) = [each for each in run.manifest.messages if each.startswith("Refused at Locust's port")]
    note(told)
    assert int(re.search(r"strangers (\d+)", told)[1]) >= 10
    assert told in " ".join(text.split())
    assert not any("gave no metrics" in each for each in run.manifest.messages)
    refused = checkout.query("sum(max_over_time(bakeoff_ksana_refused_pushes_total[5m]))")
    assert refused[""] > 0
    before, now = medians(without), medians(run)
    assert len(now) == 4 and now.keys() <= before.keys()
    for what, value in now.items():
        note(f"{what}, median: {before[what]:.2f} ms without a stranger, {value:.2f} ms with one")
        # The engines' times are exact; what a busy machine adds to a median, to either, is less.
        assert value == pytest.approx(before[what], rel=0.5), what


def medians(run):
    """Medians in ms of a run's measured requests: TTFT and time per output token, by engine and cell."""
    found = {}
    for block in run.blocks:
        first = [(each.t_first - each.t_send) / 1e6 for each in block.measured]
        between = [(each.t_last - each.t_first) / 1e6 / (each.output_tokens - 1) for each in block.measured]
        for name, values in (("TTFT", first), ("TPOT", between)):
            found[f"{name} of {block.facts.engine} {block.facts.cell}"] = statistics.median(values)
    return found
