import configparser
import itertools
import json
import shlex
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from loadgen.errors import UserError
from loadgen.settings import Paths
from stack.cpus import CpuPlan
from stack.processes.programs import (
    programs,
    render_prometheus,
    render_supervisor,
    stack_environment,
    stack_key,
)
from stack.scrape_config import prometheus_files
from tests.loadgen.test_settings import settings_of as given_settings

CHECKOUT = Path(__file__).resolve().parents[3]
CPUS = CpuPlan(engine=(0, 1, 2), traffic=(3,))


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "a 100% odd place"
    folder.mkdir()
    shutil.copytree(CHECKOUT / "prometheus", folder / "prometheus")
    return folder


def stack_of(checkout, **environ):
    settings = given_settings(checkout, environ)
    paths = Paths(checkout)
    return settings, paths, programs(settings, paths, CPUS, Path("/opt/prom/prometheus"), None)


def options_of(argv):
    """The value after each `--option` of an engine's command line."""
    return {flag: value for flag, value in itertools.pairwise(argv) if flag.startswith("--")}


def test_both_engines_get_the_same(checkout):
    _, _, stack = stack_of(checkout, BAKEOFF_CONTEXT_TOKENS="2048")
    engines = {program.name: options_of(program.argv) for program in stack if program.engine}
    assert {"llamacpp", "vllm"} >= set(engines) and "llamacpp" in engines
    for options in engines.values():
        assert options["--cpus"] == "0-2"
        assert options["--context-tokens"] == "2048"
        assert options["--parallel"] == "16"
        assert options["--served-name"] == "gemma-3-270m"


def test_all_but_the_engines_keep_off_the_engines_cores(checkout):
    _, _, stack = stack_of(checkout, BAKEOFF_WORKERS="3")
    others = [program for program in stack if not program.engine]
    assert [p.name for p in others] == [
        "locust-master",
        "locust-worker-1",
        "locust-worker-2",
        "locust-worker-3",
        "engine-exporter",
        "prometheus",
    ]
    assert all(program.argv[1:4] == ("-m", "stack.cpus", "3") for program in others)


def test_nothing_listens_beyond_this_machine(checkout):
    _, _, stack = stack_of(checkout)
    text = " ".join(argument for program in stack for argument in program.argv)
    assert "0.0.0.0" not in text
    assert "--web-host 127.0.0.1" in text and "--master-bind-host 127.0.0.1" in text
    assert "--web.listen-address=127.0.0.1:9090" in text


def test_supervisor_reads_what_was_rendered(checkout):
    """Read back by supervisor's own parser: odd paths arrive whole."""
    from supervisor.options import ServerOptions

    _, paths, stack = stack_of(checkout)
    paths.logs.mkdir(parents=True)
    paths.stack.mkdir(parents=True)
    paths.supervisor_config.write_text(render_supervisor(stack, paths))
    options = ServerOptions()
    options.realize(["-c", str(paths.supervisor_config), "-n"])
    groups = {group.name: group.process_configs[0] for group in options.process_group_configs}
    assert set(groups) == {program.name for program in stack}
    for program in stack:
        config = groups[program.name]
        assert tuple(shlex.split(config.command)) == program.argv
        assert config.directory == str(checkout)
        assert config.stdout_logfile == str(program.log)
        assert config.autostart is False
        assert config.stopasgroup and config.killasgroup
        assert bool(config.autorestart) is not program.engine
        assert config.environment.get("TMPDIR") == (str(program.temp) if program.engine else None)
    (socket,) = options.server_configs
    assert socket["file"] == str(paths.socket)
    assert oct(socket["chmod"]) == "0o600"


def test_no_tcp_control_port(checkout):
    _, paths, stack = stack_of(checkout)
    parser = configparser.RawConfigParser()
    parser.read_string(render_supervisor(stack, paths))
    assert "inet_http_server" not in parser.sections()


def test_a_path_supervisor_cannot_take_is_refused(tmp_path):
    _, paths, stack = stack_of(tmp_path)
    with pytest.raises(UserError, match="rename the folder"):
        render_supervisor(stack, Paths(Path("/a ;b")))
    assert paths.checkout == tmp_path


def test_prometheus_scrapes_traffic_exporter_and_engines(checkout):
    settings, paths, _ = stack_of(checkout, BAKEOFF_VLLM_PORT="7001")
    files = render_prometheus(settings, paths)
    config = YAML(typ="safe").load(files["prometheus.yml"])
    assert config["rule_files"] == ["rules.yml", "alerts.yml"] == sorted(set(files) - {"prometheus.yml"}, reverse=True)
    jobs = {job["job_name"]: job["static_configs"][0] for job in config["scrape_configs"]}
    assert jobs["bakeoff-client"]["targets"] == ["127.0.0.1:8089"]
    assert jobs["engine-exporter"]["targets"] == ["127.0.0.1:9101"]
    assert jobs["llamacpp"] == {"targets": ["127.0.0.1:8102"], "labels": {"engine": "llamacpp"}}
    if "vllm" in jobs:
        assert jobs["vllm"] == {"targets": ["127.0.0.1:7001"], "labels": {"engine": "vllm"}}


def test_prometheus_scrapes_the_exporter_of_pushed_metrics_where_there_is_one(checkout):
    given = {"client": "a:1", "engine_exporter": "b:2", "prometheus": "c:3"}
    for address in (None, "ksana-exporter:9103"):
        config = YAML(typ="safe").load(
            prometheus_files(checkout, [], **given, ksana_exporter=address)["prometheus.yml"]
        )
        found = [job["static_configs"] for job in config["scrape_configs"] if job["job_name"] == "ksana-exporter"]
        assert found == ([[{"targets": [address]}]] if address else [])


def test_locust_is_told_the_engines(checkout):
    settings, paths, _ = stack_of(checkout)
    environment = stack_environment(settings, paths)
    engines = json.loads(environment["BAKEOFF_ENGINES_JSON"])
    assert engines[0] == {
        "name": "llamacpp",
        "kind": "llamacpp",
        "base_url": "http://127.0.0.1:8102",
        "model": "gemma-3-270m",
        "api": "completions",
    }
    assert environment["BAKEOFF_STACK"] == str(checkout / ".bakeoff")
    assert environment["BAKEOFF_RUNS_DIR"] == str(checkout / "runs")


def test_the_key_changes_with_the_settings(checkout):
    keys = set()
    for environ in ({}, {"BAKEOFF_VLLM_PORT": "7001"}, {"BAKEOFF_RUNS_DIR": "elsewhere"}, {"BAKEOFF_WORKERS": "2"}):
        settings, paths, stack = stack_of(checkout, **environ)
        keys.add(stack_key(stack, settings, paths))
    assert len(keys) == 4
