"""What no service of compose.yaml may go without, in every profile: a new service cannot forget.

Compose itself resolves the file where it is installed; elsewhere a YAML reader does, with the file's own defaults.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from loadgen.hosts.stack_file import serving_file
from stack.scrape_config import LOOKBACK

CHECKOUT = Path(__file__).resolve().parents[3]
FILE = CHECKOUT / "compose.yaml"
PROFILES = {"gpu": {"vllm", "ksana", "sglang"}, "cpu": {"vllm-cpu", "llamacpp"}, "sim": {"sim-vllm", "sim-ksana"}}
BESIDE = {"gpu": {"gpu-exporter", "ksana-exporter"}, "sim": {"ksana-exporter"}}
ALWAYS = {"locust", "locust-worker", "engine-exporter", "prometheus", "grafana"}
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::?([-?])((?:[^{}]|\$\{[^{}]*\})*))?\}")
Service = dict[str, Any]


def interpolate(text: str) -> str:
    """Compose's `${NAME:-default}` and `${NAME:?message}` where no variable is set."""
    while match := VARIABLE.search(text):
        text = text[: match.start()] + ((match[3] or "") if match[2] == "-" else "set") + text[match.end() :]
    return text


def resolved(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: resolved(value) for key, value in node.items()}
    if isinstance(node, list):
        return [resolved(value) for value in node]
    return interpolate(node) if isinstance(node, str) else node


def read_yaml(profile: str) -> dict[str, Service]:
    services = resolved(YAML(typ="safe").load(FILE.read_text(encoding="utf-8")))["services"]
    return {name: each for name, each in services.items() if profile in each.get("profiles", [profile])}


def compose() -> list[str] | None:
    for command in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(command[0]):
            result = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
            if result.returncode == 0:
                return command
    return None


def read_with_compose(command: list[str], profile: str) -> dict[str, Service]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    result = subprocess.run(
        [*command, "--env-file", os.devnull, "--file", FILE, "--profile", profile, "config", "--format", "json"],
        env={**kept, "BAKEOFF_GRAFANA_PASSWORD": "set"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["services"]


READERS = {"yaml": read_yaml}
if command := compose():
    READERS["compose"] = lambda profile: read_with_compose(command, profile)


@pytest.fixture(params=[(reader, profile) for reader in READERS for profile in PROFILES], ids="-".join)
def services(request: pytest.FixtureRequest) -> dict[str, Service]:
    reader, profile = request.param
    found = READERS[reader](profile)
    assert set(found) == ALWAYS | PROFILES[profile] | BESIDE.get(profile, set())
    return found


def text_of(value: Any) -> str:
    return json.dumps(value)


def seconds(duration: str) -> float:
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([hms])", duration))


def published(port: Any) -> tuple[str, str]:
    """Address and container port of a port, in Compose's short or long form."""
    if isinstance(port, dict):
        return str(port.get("host_ip", "")), str(port["target"])
    parts = port.rsplit(":", 2)
    return (parts[0] if len(parts) == 3 else ""), parts[-1]


RULES = {}


def rule(check):
    RULES[check.__name__] = check
    return check


@rule
def image_has_an_exact_version(service: Service) -> bool:
    name = service["image"].partition("@")[0].rsplit("/", 1)[-1]
    tag = name.partition(":")[2]
    return tag != "latest" and any(digit in tag for digit in "0123456789")


@rule
def health_check_asks(service: Service) -> bool:
    check = service.get("healthcheck") or {}
    test = check.get("test") or []
    asks = "127.0.0.1" in text_of(test) or ".control:" in text_of(test)
    limited = 0 < seconds(check["timeout"]) <= 10 and seconds(check["interval"]) >= 3
    return not check.get("disable") and test[0] == "CMD" and asks and limited and seconds(check["start_period"]) > 0


@rule
def user_is_not_root(service: Service) -> bool:
    return service.get("user", "").partition(":")[0] not in ("", "0", "root")


@rule
def root_is_read_only(service: Service) -> bool:
    return service.get("read_only") is True


@rule
def no_capabilities(service: Service) -> bool:
    return service.get("cap_drop") == ["ALL"] and not service.get("cap_add")


@rule
def no_new_privileges(service: Service) -> bool:
    return service.get("security_opt") == ["no-new-privileges:true"] and not service.get("privileged")


@rule
def memory_is_limited(service: Service) -> bool:
    return bool(re.fullmatch(r"[1-9]\d*[mgMG]?", str(service.get("mem_limit", ""))))


@rule
def processes_are_limited(service: Service) -> bool:
    return 0 < int(service.get("pids_limit", 0)) <= 8192


@rule
def log_is_rotated(service: Service) -> bool:
    logging = service.get("logging") or {}
    options = logging.get("options") or {}
    return logging.get("driver") == "json-file" and {"max-size", "max-file"} <= set(options)


@rule
def restart_policy_fits(service: Service) -> bool:
    return service.get("restart") == ("no" if "bakeoff.engine" in (service.get("labels") or {}) else "unless-stopped")


@rule
def ports_are_on_loopback(service: Service) -> bool:
    return all(published(port)[0] == "127.0.0.1" for port in service.get("ports") or [])


@rule
def no_docker_socket_and_no_namespace_of_the_host(service: Service) -> bool:
    shared = [service.get(key) for key in ("network_mode", "pid", "ipc", "userns_mode", "uts")]
    return "docker.sock" not in text_of(service) and "host" not in shared and not service.get("devices")


@rule
def code_and_configuration_are_read_only(service: Service) -> bool:
    mounts = [mount for mount in service.get("volumes") or [] if isinstance(mount, dict) and mount["type"] == "bind"]
    return all(mount.get("read_only") for mount in mounts if mount["target"] != "/runs")


@rule
def temporary_files_are_limited(service: Service) -> bool:
    mounts = [mount for mount in service.get("tmpfs") or [] if mount.startswith("/tmp:")]
    return len(mounts) == 1 and "size=" in mounts[0] and "nosuid" in mounts[0]


@pytest.mark.parametrize("name", RULES)
def test_every_service(name: str, services: dict[str, Service]) -> None:
    assert [service for service in services if not RULES[name](services[service])] == []


BROKEN = {
    "image_has_an_exact_version": {"image": "prom/prometheus:latest"},
    "health_check_asks": {"healthcheck": {"disable": True, "timeout": "1s", "interval": "5s", "test": ["CMD"]}},
    "user_is_not_root": {"user": "0:0"},
    "root_is_read_only": {"read_only": False},
    "no_capabilities": {"cap_add": ["SYS_ADMIN"]},
    "no_new_privileges": {"privileged": True},
    "memory_is_limited": {"mem_limit": ""},
    "processes_are_limited": {"pids_limit": 0},
    "log_is_rotated": {"logging": {"driver": "json-file"}},
    "restart_policy_fits": {"restart": "always"},
    "ports_are_on_loopback": {"ports": ["8089:8089"]},
    "no_docker_socket_and_no_namespace_of_the_host": {"volumes": ["/var/run/docker.sock:/s"]},
    "code_and_configuration_are_read_only": {"volumes": [{"type": "bind", "source": "docker", "target": "/x"}]},
    "temporary_files_are_limited": {"tmpfs": ["/tmp"]},
}


@pytest.mark.parametrize("name", RULES)
def test_each_rule_can_fail(name: str) -> None:
    good = read_yaml("sim")["sim-vllm"]
    assert RULES[name](good)
    assert not RULES[name]({**good, **BROKEN[name]})


def test_dependencies_are_healthy(services: dict[str, Service]) -> None:
    conditions = {
        (name, other): condition["condition"]
        for name, service in services.items()
        for other, condition in (service.get("depends_on") or {}).items()
    }
    assert set(conditions.values()) == {"service_healthy"}
    assert {("locust-worker", "locust"), ("grafana", "prometheus")} <= set(conditions)


def test_engines_say_what_they_are(services: dict[str, Service]) -> None:
    for name in set(services) & set().union(*PROFILES.values()):
        labels = services[name]["labels"]
        assert labels["bakeoff.engine"] in ("vllm", "ksana", "llamacpp", "sglang")
        assert labels["bakeoff.api"] in ("chat", "completions")
        assert labels["bakeoff.model"]
        assert [published(port)[1] for port in services[name]["ports"]] == [labels["bakeoff.port"]]
        assert float(labels["bakeoff.start-limit-s"]) >= 60


def test_every_launcher_reads_the_serving_settings_where_make_up_writes_them(services: dict[str, Service]) -> None:
    file = serving_file(Path())
    for name in set(services) & {"vllm", "ksana", "vllm-cpu", "llamacpp"}:
        mounts = {mount["target"]: mount for mount in services[name]["volumes"] if "target" in mount}
        told = Path(services[name]["environment"]["BAKEOFF_SERVING_FILE"])
        assert told.name == file.name
        assert Path(mounts[str(told.parent)]["source"]).parts[-3:] == file.parent.parts
        assert mounts[str(told.parent)]["read_only"]


def test_ksana_pushes_to_its_exporter_under_its_own_name() -> None:
    sim, gpu = read_yaml("sim"), read_yaml("gpu")
    (port,) = gpu["ksana-exporter"]["ports"]
    address = f"http://ksana-exporter:{published(port)[1]}"
    assert gpu["ksana"]["environment"]["BAKEOFF_METRICS_URL"] == f"{address}/v1/metrics"
    assert f"--metrics-export-url={address}/sim-ksana/v1/metrics" in sim["sim-ksana"]["command"]


def test_only_engines_that_fetch_models_get_the_token(services: dict[str, Service]) -> None:
    holders = [name for name, service in services.items() if "hf_token" in text_of(service.get("secrets"))]
    assert set(holders) in (set(), {"vllm", "sglang"})
    assert "HF_TOKEN" not in "".join(text_of(service.get("environment")) for service in services.values())


def networks_of(service: Service) -> dict[str, Any]:
    given = service.get("networks") or ["default"]
    return given if isinstance(given, dict) else dict.fromkeys(given)


def test_an_engine_reaches_nothing_that_listens(services: dict[str, Service]) -> None:
    """Whoever shares the engines' network is an engine, serves nothing, or listens on its other network's name only."""
    for name, service in services.items():
        networks, listens = networks_of(service), text_of(service.get("command"))
        if "bakeoff.engine" in (service.get("labels") or {}):
            assert set(networks) <= {"engines", "pushes"}
            assert ("pushes" in networks) == ("ksana" in name), "who pushes reaches its exporter"
        elif "engines" in networks and name != "locust-worker":
            alias = f"{name}.control"
            assert (networks["default"] or {})["aliases"] == [alias]
            assert alias in listens and "0.0.0.0" not in listens and "127.0.0.1:" not in listens
        elif "pushes" in networks:
            assert name == "ksana-exporter"


def test_locusts_processes_alone_get_the_traffic_secret(services: dict[str, Service]) -> None:
    for name, service in services.items():
        told = (service.get("environment") or {}).get("BAKEOFF_TRAFFIC_SECRET_FILE")
        assert ("traffic_secret" in text_of(service.get("secrets"))) == (name in ("locust", "locust-worker"))
        assert told == ("/run/secrets/traffic_secret" if name in ("locust", "locust-worker") else None)


def test_published_ports_are_those_of_the_first_network_by_name(services: dict[str, Service]) -> None:
    """Docker publishes a container's ports in its gateway's network: `default` where there is that one."""
    for service in services.values():
        networks = sorted(networks_of(service))
        assert networks[0] == ("default" if "default" in networks else "engines")


def test_locust_ends_by_interrupt(services: dict[str, Service]) -> None:
    assert {services[name]["stop_signal"] for name in ("locust", "locust-worker")} == {"SIGINT"}


def test_gpus_are_reserved_by_id_and_the_exporter_sees_all() -> None:
    for name, service in read_yaml("gpu").items():
        devices = ((service.get("deploy") or {}).get("resources") or {}).get("reservations", {}).get("devices", [])
        if name == "gpu-exporter":
            assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu", "utility"]}], "no CUDA"
        else:
            assert [device["device_ids"] for device in devices] == ([["0"]] if name in PROFILES["gpu"] else [])


def test_what_shows_the_gpu_exporter_this_machines_processes_does_that_only() -> None:
    override = YAML(typ="safe").load((CHECKOUT / "docker/gpu-processes.yaml").read_text(encoding="utf-8"))
    assert override == {"services": {"gpu-exporter": {"pid": "host", "init": False}}}


def test_workers_elsewhere_find_the_same_ports() -> None:
    lan = YAML(typ="safe").load((CHECKOUT / "docker/lan.yaml").read_text(encoding="utf-8"))["services"]
    for profile, names in PROFILES.items():
        services = read_yaml(profile)
        for name in names:
            port = services[name]["labels"]["bakeoff.port"]
            assert lan.pop(name) == {"ports": [f"${{BAKEOFF_LAN_ADDRESS:?}}:{port}:{port}"]}
    assert lan == {"locust": {"ports": ["${BAKEOFF_LAN_ADDRESS:?}:5557:5557"]}}


def test_every_image_is_named_once() -> None:
    text = FILE.read_text(encoding="utf-8")
    for name in ("PYTHON_IMAGE", "PROMETHEUS_IMAGE", "GRAFANA_IMAGE", "VLLM_IMAGE", "KSANA_IMAGE", "SGLANG_IMAGE"):
        assert len(re.findall(rf"\$\{{{name}:-", text)) == 1


def test_our_images_have_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+)"$', (CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    assert version
    tags = set(re.findall(r"image: bakeoff/[a-z-]+:(\S+)", FILE.read_text(encoding="utf-8")))
    assert tags == {version[1]}


@pytest.mark.parametrize("dockerfile", sorted(CHECKOUT.glob("docker/*/Dockerfile")), ids=lambda path: path.parent.name)
def test_a_final_layer_has_no_root_and_no_build_tool(dockerfile: Path) -> None:
    stages = re.split(r"(?m)^FROM ", dockerfile.read_text(encoding="utf-8"))
    assert len(stages) > 2, "one stage builds, another is kept"
    final = stages[-1]
    user = re.findall(r"(?m)^USER (\d+):(\d+)$", final)
    assert user
    assert "0" not in user[-1]
    assert not re.search(r"apt-get|pip install|gcc|g\+\+|curl|git ", final)
    assert "-perm /6000 -exec chmod a-s {} +" in final


def test_the_traffic_image_is_without_grafana_client() -> None:
    lock = (CHECKOUT / "docker/traffic/requirements.lock").read_text(encoding="utf-8")
    assert "locust==" in lock
    assert not re.search(r"(?m)^(grafana-client|niquests|urllib3-future)==", lock)


@pytest.mark.parametrize("lock", sorted(CHECKOUT.glob("docker/*/requirements.lock")), ids=lambda path: path.parent.name)
def test_images_hold_what_the_tests_ran_with(lock: Path) -> None:
    def pins(path: Path) -> set[str]:
        return set(re.findall(r"(?m)^([a-z0-9][a-z0-9._-]*==\S+)", path.read_text(encoding="utf-8")))

    source = "stack/engines/llamacpp/" if lock.parent.name == "llamacpp" else ""
    assert pins(lock) <= pins(CHECKOUT / f"{source}requirements.lock")


def test_only_the_engine_exporter_sees_control_groups_and_cannot_write_them(services: dict[str, Service]) -> None:
    seen = {
        name: [mount for mount in service.get("volumes") or [] if "/sys" in text_of(mount)]
        for name, service in services.items()
    }
    assert [name for name, mounts in seen.items() if mounts] == ["engine-exporter"]
    (mount,) = seen["engine-exporter"]
    assert (mount["source"], mount["read_only"]) == ("/sys/fs/cgroup", True)
    assert f"--cgroups={mount['target']}" in services["engine-exporter"]["command"]


def test_exporters_read_one_container_map() -> None:
    for name, service in read_yaml("gpu").items():
        words = " ".join(service.get("command") or []).replace("=", " ").split()
        if "--containers" in words:
            file = Path(words[words.index("--containers") + 1])
            sources = {mount["target"]: mount["source"] for mount in service["volumes"]}
            assert sources[str(file.parent)] == ".bakeoff/stack/exporters", name
        else:
            assert name not in ("engine-exporter", "gpu-exporter")


def test_prometheus_bridges_no_gap_in_containers_either() -> None:
    assert LOOKBACK in read_yaml("sim")["prometheus"]["command"]
