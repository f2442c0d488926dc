"""llama.cpp in a container on CPU, raced against a simulated engine: a real model through the whole container stack."""

import os
import re
import shutil

import pytest

from loadgen.runs.folder import RunFolder
from loadgen.settings import Paths
from stack import setup
from tests.docker.checkout import copy_checkout
from tests.docker.commands import step
from tests.docker.engine import CHECKOUT

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def checkout(engine, base_images, site_build_arguments, tmp_path_factory):
    setup.ensure_engine(Paths(CHECKOUT), "llamacpp")  # the model comes with it; `make test` has made it already
    settings = {**base_images, **site_build_arguments, "GRAFANA_IMAGE": "none", "BAKEOFF_ENGINES": "llamacpp,sim-ksana"}
    copy = copy_checkout(tmp_path_factory.mktemp("cpu"), engine, f"bakeoff-test-cpu-{os.getpid()}", settings)
    (copy.folder / ".bakeoff").mkdir()
    for name in ("venvs", "models"):
        (copy.folder / ".bakeoff" / name).symlink_to(CHECKOUT / ".bakeoff" / name)
    yield copy
    copy.make("clean")
    shutil.rmtree(copy.folder)


@pytest.fixture(scope="module")
def run(checkout):
    """Up, race, report, as a user has it; the run."""
    with step("make up PROFILE=cpu,sim"):
        up = checkout.make("up", "PROFILE=cpu,sim", "RUNTIME=docker", "WORKERS=2")
    assert up.status == 0, up.text
    assert "llamacpp: healthy" in up.text
    name = checkout.scenario("real", prompt_tokens=[32], output_tokens=[8], load={"concurrency": [1, 2]}, requests=4)
    with step("make bench, llama.cpp and a simulated engine"):
        # A simulator does not speak as a model does, which preflight would refuse.
        bench = checkout.make("bench", f"SCENARIO={name}", "ARGS=--accept prompt-tokens,greedy-text")
    assert bench.raced, bench.text
    report = checkout.make("report")
    assert report.status == 0, report.text
    return RunFolder.find(checkout.folder / "runs", None)


def test_the_model_answers_every_request_with_as_many_tokens_as_asked(run):
    data = run.load()
    assert data.manifest.status == "complete"
    assert {facts.engine for facts in data.manifest.blocks} == {"llamacpp", "sim-ksana"}
    for block in data.blocks:
        assert len(block.measured) == 4
        assert {(each.ok, each.prompt_tokens, each.output_tokens) for each in block.measured} == {(True, 32, 8)}


def test_the_manifest_tells_image_command_and_model(run):
    launch = next(each.launch for each in run.load().manifest.engines if each.name == "llamacpp")
    assert launch["host"] == "docker"
    assert launch["image"]["id"].startswith("sha256:")
    assert "--parallel=16" in launch["container"]["argv"]
    assert (launch["container"]["user"], launch["container"]["read_only"]) == ("10001:10001", True)
    assert launch["limits"]["memory_bytes"] == 8 << 30
    # What only the launcher inside knows.
    assert re.fullmatch("[0-9a-f]{64}", launch["model_sha256"])


def test_the_report_has_both(run):
    for name in ("report.md", "report.html"):
        text = (run.path / name).read_text(encoding="utf-8")
        assert "llamacpp" in text
        assert "sim-ksana" in text


def test_down_and_clean_leave_nothing_but_runs_and_the_linked_model(checkout, client, run):
    assert checkout.make("down").status == 0
    left = checkout.left(client)
    assert (left["containers"], left["networks"]) == ([], [])
    assert left["volumes"] == [f"{checkout.project}_{name}" for name in ("llamacpp-state", "prometheus-data")]
    assert checkout.make("clean").status == 0
    assert checkout.left(client) == {"containers": [], "networks": [], "volumes": []}
    assert Paths(CHECKOUT).gguf.is_file()
    assert run.records_path.is_file()
