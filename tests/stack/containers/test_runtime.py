import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError
from loadgen.hosts.stack_file import DockerStack, read_stack
from stack.containers.docker_engine import DockerEngine
from stack.containers.runtime import ContainerRuntime, read_profiles, write_container_map


@pytest.fixture
def stack(tmp_path, monkeypatch):
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    (tmp_path / ".bakeoff" / "stack" / "prometheus").mkdir(parents=True)
    shutil.copytree(Path(__file__).parents[3] / "prometheus", tmp_path / "prometheus")
    return ContainerRuntime(
        tmp_path, DockerEngine("unix:///docker.sock", "27", gpu_runtime=False), ["docker", "compose"]
    )


def test_stack_json_is_what_a_race_reads(stack, tmp_path):
    dataclasses.replace(stack, profiles=("cpu",))._write_stack_file(
        stack.settings(), ["grafana", "gpu-exporter", "ksana-exporter"]
    )
    assert read_stack(tmp_path) == DockerStack(
        project="bakeoff",
        profile="cpu",
        urls={
            "locust-master": "http://127.0.0.1:8089",
            "engine-exporter": "http://127.0.0.1:9101",
            "prometheus": "http://127.0.0.1:9090",
        },
        runs_dir=tmp_path / "runs",
        inside_runs_dir="/runs",
    )


def test_the_project_that_is_up_is_meant(stack, tmp_path, monkeypatch):
    stack._write_stack_file(stack.settings().model_copy(update={"project": "second"}), [])
    assert stack.settings().project == "second"
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", "third")
    assert stack.settings().project == "third"


def test_prometheus_scrapes_services_by_name(stack, tmp_path):
    engines = [
        Seat(name="vllm-cpu", kind="vllm", base_url="http://vllm-cpu:8101", model="m", api="completions"),
        Seat(name="sim-ksana", kind="ksana", base_url="http://sim-ksana:8112", model="m", api="chat"),
    ]
    variables = stack._worked_out(engines, ())
    text = (tmp_path / ".bakeoff/stack/prometheus/prometheus.yml").read_text()
    for address in ("locust.control:8089", "engine-exporter.control:9101", "vllm-cpu:8101"):
        assert f'targets: ["{address}"]' in text
    assert "sim-ksana" not in text  # it pushes its metrics
    assert [seat["name"] for seat in json.loads(variables["BAKEOFF_ENGINES_JSON"])] == ["vllm-cpu", "sim-ksana"]
    assert "gpu-exporter" not in text
    other = stack._worked_out(engines[1:], {"gpu-exporter"})
    assert other["BAKEOFF_PROMETHEUS_CONFIG_HASH"] != variables["BAKEOFF_PROMETHEUS_CONFIG_HASH"]


def test_profiles():
    assert read_profiles("cpu, sim") == ("cpu", "sim")
    for wrong in ("", "gpus"):
        with pytest.raises(UserError, match="there are gpu, cpu, sim"):
            read_profiles(wrong)


def test_the_container_map_is_there_before_the_exporters_and_is_kept(stack, tmp_path):
    path = tmp_path / ".bakeoff/stack/exporters/containers.json"
    stack._prepare_folders(stack.settings())
    assert json.loads(path.read_text()) == {}
    assert path.stat().st_mode & 0o777 == 0o644
    write_container_map(path, {"a1" * 32: "vllm"})
    stack._prepare_folders(stack.settings())
    assert json.loads(path.read_text()) == {"a1" * 32: "vllm"}
    assert path.stat().st_mode & 0o777 == 0o644
