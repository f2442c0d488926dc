"""The engine that the other tests of this tier stand on: it builds, publishes on loopback, and keeps constraints."""

import json
from pathlib import Path

import psutil
import pytest
import requests

from tests.docker.stack import Stack

pytestmark = pytest.mark.docker

PROJECT = {"label": "com.docker.compose.project=bakeoff-probe"}


@pytest.fixture(scope="module")
def stack(engine, base_images, site_build_arguments):
    probe = Stack(engine, Path(__file__).parent / "probe", {**base_images, **site_build_arguments})
    probe.compose("build", "--quiet")
    try:
        probe.compose("up", "--detach", "--wait", "--wait-timeout", "300")
        yield probe
    finally:
        probe.compose("down", "--volumes", "--timeout", "5")


def address(stack, service, port):
    return "http://" + stack.compose("port", service, str(port)).strip()


@pytest.fixture(scope="module")
def told(stack):
    return requests.get(address(stack, "web", 8000), timeout=60).json()


def test_a_container_runs_without_root_capabilities_or_a_writable_root(told):
    assert (told["uid"], told["gid"]) == (65532, 65532)
    assert {int(mask, 16) for mask in told["capabilities"]} == {0}
    assert told["no_new_privileges"] == "1"
    assert (told["root"], told["tmp"]) == ("Read-only file system", "written")
    assert told["init"] in ("docker-init", "tini")


def test_a_container_is_pinned_to_its_cpus(told):
    assert told["cpus"] == [0]


def test_a_build_installs_a_package_from_the_registry(told):
    assert told["package"] == "1.2.0"


@pytest.mark.parametrize(("service", "port"), [("web", 8000), ("prometheus", 9090)])
def test_a_port_is_published_on_loopback_alone(stack, service, port):
    host, _, number = stack.compose("port", service, str(port)).strip().rpartition(":")
    assert host == "127.0.0.1"
    listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    assert {each.laddr.ip for each in listening if each.laddr.port == int(number)} == {"127.0.0.1"}


def test_a_hardened_prometheus_serves_its_own_metrics_page(stack):
    answer = requests.get(f"{address(stack, 'prometheus', 9090)}/api/v1/query", {"query": "vector(7)"}, timeout=60)
    assert answer.json()["data"]["result"][0]["value"][1] == "7"


def test_the_sdk_finds_healthy_containers_by_compose_labels_and_reads_their_limits(stack, client):
    found = {each.labels["com.docker.compose.service"]: each for each in client.containers.list(filters=PROJECT)}
    assert sorted(found) == ["prometheus", "web"]
    for container in found.values():
        assert container.attrs["State"]["Health"]["Status"] == "healthy"
        host = container.attrs["HostConfig"]
        assert (host["Memory"], host["PidsLimit"], host["ReadonlyRootfs"]) == (128 << 20, 32, True)


def test_memory_and_process_limits_bind(stack, client):
    web = client.containers.list(filters={"label": [*PROJECT.values(), "com.docker.compose.service=web"]})[0]
    assert web.exec_run(["python3", "-c", "bytearray(256 << 20)"]).exit_code == 137
    many = "import threading, time\nfor _ in range(64): "
    threads = f"{many}threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()"
    result = web.exec_run(["python3", "-c", threads])
    assert result.exit_code != 0
    assert b"can't start new thread" in result.output


def test_stop_sends_the_services_own_signal_and_down_leaves_nothing(engine, client, stack):
    stack.compose("stop", "web")
    assert "stopped by SIGINT" in stack.compose("logs", "--no-color", "web")
    stack.compose("down", "--volumes")
    assert client.containers.list(all=True, filters=PROJECT) == []
    assert client.networks.list(filters=PROJECT) == []
    assert client.volumes.list(filters=PROJECT) == []
    assert json.loads(stack.compose("ps", "--all", "--format", "json") or "[]") == []
