"""A machine with a GPU and no Docker, as far as it can be pretended: what `make up` says, starts and refuses."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from loadgen.errors import UserError
from loadgen.hosts.cards import Card
from loadgen.hosts.placement import Place, declare_places, read_places
from loadgen.machine import unused_ports
from loadgen.runs.folder import RunFolder
from loadgen.settings import variables
from stack import cli
from stack.choice import Found
from stack.cpus import available_cpus
from stack.processes import runtime, strays
from tests.stack.processes.checkout import HERE, PARTS, PORTS, Checkout

GIB = 1 << 30
OWN = "ENGINE_SIM_KSANA"
PRETEND = HERE / "tests" / "stack" / "processes" / "pretend_gpu"
# Says that it is ready, and knows nothing.
PROMETHEUS = f"""\
#!/bin/sh
for word in "$@"; do case $word in --web.listen-address=*) port=${{word##*:}};; esac; done
mkdir -p "$0.d/-" && touch "$0.d/-/ready" && cd "$0.d" && exec {sys.executable} -m http.server $port -b 127.0.0.1
"""

# Holds shared memory and a socket as vLLM does, and leaves both to others to take away.
SERVER = """\
import mmap, os, runpy, socket, sys, tempfile
options = dict(zip(sys.argv[1:], sys.argv[2:]))
segment = open(f"/dev/shm/psm_bakeoff_test_{os.getpid()}", "w+b")
segment.truncate(4096)
shared = mmap.mmap(segment.fileno(), 4096)
listening = socket.socket(socket.AF_UNIX)
listening.bind(os.path.join(tempfile.gettempdir(), "engine.sock"))
checkout = os.path.dirname(os.environ["BAKEOFF_STACK"])
with open(checkout + "/held.txt", "w") as told:
    told.write(segment.name + chr(10) + listening.getsockname())
sys.path.insert(0, checkout)
sys.argv[1:] = ["--host", options["--host"], "--port", options["--port"], "--model", options["--served-model-name"]]
sys.argv[1:1] = ["--ttft-ms", "5", "--tpot-ms", "1"]
runpy.run_module("simulator", run_name="__main__")
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="supervisor's groups and /proc")


class GpuBox(Checkout):
    """A checkout on it, with an endpoint of Docker where nobody is."""

    def __init__(self, folder):
        super().__init__(folder, (*PORTS, "GPU_EXPORTER", "KSANA_EXPORTER", "KSANA", OWN), (*PARTS, "simulator"))
        self.profile = ""
        shim = folder / "pretend"
        shutil.copytree(PRETEND, shim, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(HERE / "tests" / "exporters" / "fake_nvml.py", shim)
        self.gpus = folder / "gpus.json"
        del self.environment[f"BAKEOFF_{OWN}_PORT"]
        self.environment |= {
            "PYTHONPATH": str(shim),
            "PRETEND_GPUS": str(self.gpus),
            "DOCKER_HOST": f"unix://{folder}/no.sock",
            "PATH": f"{folder / '.venv' / 'bin'}:{self.environment['PATH']}",
            "PROMETHEUS_BIN": str(folder / "prometheus.sh"),
        }
        self.environment.pop("CUDA_VISIBLE_DEVICES", None)
        (folder / "prometheus.sh").write_text(PROMETHEUS)
        (folder / "prometheus.sh").chmod(0o755)
        self.hold(0)

    def hold(self, used, *processes, cards=1):
        """The first card's memory in use, and by whom; the others' is free."""
        told = [{"used": used, "processes": processes}] + [{"used": 0, "processes": []}] * (cards - 1)
        self.gpus.write_text(json.dumps(told))


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    found = GpuBox(tmp_path_factory.mktemp("gpu box"))
    yield found
    found.end()


MODEL = {"BAKEOFF_MODEL_DIR": "model"}


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, r"no model is named: set BAKEOFF_MODEL_DIR .*; or PROFILE=cpu for CPU engines"),
        ({"BAKEOFF_MODEL_DIR": "nowhere"}, r"BAKEOFF_MODEL_DIR=nowhere: .*/nowhere holds no config.json"),
        (
            {**MODEL, "BAKEOFF_VLLM_PYTHON": "/no/python"},
            r"BAKEOFF_VLLM_PYTHON=/no/python is no Python that runs: no such",
        ),
        (
            {**MODEL, "BAKEOFF_VLLM_PYTHON": "/bin/false"},
            r"BAKEOFF_VLLM_PYTHON=/bin/false is no Python .*: exit status 1",
        ),
        ({**MODEL, "BAKEOFF_VLLM_PYTHON": sys.executable}, r"has no module vllm: install it there, or unset that"),
        (
            {**MODEL, "BAKEOFF_KSANA_HOME": "model"},
            r"BAKEOFF_KSANA_HOME=model: there is no serving_server.py in .*/python",
        ),
        ({"BAKEOFF_ENGINE_X_COMMAND": "true"}, r"BAKEOFF_ENGINE_X_KIND and BAKEOFF_ENGINE_X_PORT too must be"),
        (
            {"BAKEOFF_ENGINE_X_COMMAND": "true", "BAKEOFF_ENGINE_X_KIND": "y", "BAKEOFF_ENGINE_X_PORT": "8999"},
            r"BAKEOFF_ENGINE_X_KIND: Unknown engine kind 'y'. Known: vllm",
        ),
        ({**MODEL, "BAKEOFF_ENGINES": "sglang"}, r"BAKEOFF_ENGINES: this profile has no engine sglang; it has vllm"),
    ],
)
def test_what_is_not_there_is_one_message(environ, message, tmp_path, monkeypatch):
    monkeypatch.setattr(cli, "CHECKOUT", tmp_path)
    monkeypatch.setattr(cli, "look_around", lambda: Found("no Docker engine"))
    monkeypatch.setattr(cli, "gpus_here", lambda: [Card(0, "GPU-0", "NVIDIA H200")])
    monkeypatch.setattr(runtime, "check_ports", lambda *_: None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    for name in variables():
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    done = CliRunner().invoke(cli.app, ["up"])
    assert isinstance(done.exception, UserError) and done.exception.exit_code == 2
    assert re.search(message, str(done.exception))
    assert not (tmp_path / ".bakeoff" / "stack").exists()


def metrics(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=120) as answer:
        return answer.read().decode()


def wait_for(condition, limit_s=300.0):
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, f"not within {limit_s:g} s"
        time.sleep(0.2)


def vllm_python(folder):
    """A Python that has a vLLM: the simulator, which takes vLLM's address and port."""
    server = folder / "vllm" / "vllm" / "entrypoints" / "openai" / "api_server.py"
    server.parent.mkdir(parents=True)
    for package in (server.parent, server.parent.parent, server.parent.parent.parent):
        (package / "__init__.py").touch()
    server.write_text(SERVER)
    python = folder / "vllm" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(folder / "vllm"))} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(python)


@pytest.fixture(scope="module")
def ready(box):
    """The box with two engines to start: vLLM by its launcher, and an own command; simulators in both seats."""
    push = f"exec {sys.executable} -m simulator --personality ksana --port $BAKEOFF_PORT --ttft-ms 5 --tpot-ms 1"
    box.environment |= {
        "BAKEOFF_MODEL_DIR": "model",
        "BAKEOFF_VLLM_PYTHON": vllm_python(box.folder),
        f"BAKEOFF_{OWN}_COMMAND": f"{push} --metrics-export-url $BAKEOFF_METRICS_URL",
        f"BAKEOFF_{OWN}_KIND": "ksana",
        f"BAKEOFF_{OWN}_PORT": str(box.ports[OWN]),
    }
    (box.folder / "model").mkdir()
    (box.folder / "model" / "config.json").write_text('{"model_type": "qwen2"}')
    box.hold(GIB // 4)
    return box


def write_scenario(box, name, requests, **serving):
    path = box.folder / f"{name}.yaml"
    block = json.dumps({"max_batch_size": 16, **serving})
    path.write_text(
        f"name: {name}\nquestion: Is it raced?\nprompt_tokens: [16]\noutput_tokens: [8]\nload: {{concurrency: [1]}}\n"
        f"requests: {requests}\nwarmup_requests: 0\nrepeats: 1\nseed: 1\nserving: {block}\n"
    )
    return str(path)


@pytest.mark.integration
def test_engines_take_turns_on_a_gpu(ready):
    box = ready
    done = box.run("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"stack: plain processes \(.*no.sock.*\), profile gpu \(1 x NVIDIA H200\)", done.stdout)
    assert "vllm: healthy after" in done.stdout and "gpu-exporter: starting" in done.stdout
    facts = box.host().describe("vllm")
    assert facts["gpus"] == {"device_ids": ["0"]} and facts["argv"][facts["argv"].index("--host") + 1] == "127.0.0.1"

    race = box.run("bench", write_scenario(box, "two", 3), module="loadgen")
    assert race.returncode in (0, 4, 6), race.stdout + race.stderr
    (manifest,) = (box.folder / "runs").glob("*/manifest.json")
    run = json.loads(manifest.read_text())
    assert [block["status"] for block in run["blocks"]] == ["complete"] * 2
    assert run["stack"]["profile"] == "gpu"

    assert [engine["name"] for engine in run["engines"]] == ["vllm", "sim-ksana"]
    vllm, own = (engine["launch"] for engine in run["engines"])
    assert vllm["argv"][vllm["argv"].index("--max-num-seqs") + 1] == "16"
    assert own["gpus"] == {"device_ids": ["0"]} and "not applied" in own["notes"][0]

    box.host().start("vllm")
    pid = box.host().describe("vllm")["pid"]
    box.hold(9 * GIB, [pid, 8 * GIB], [os.getpid(), GIB])
    told = r'bakeoff_gpu_engine_memory_bytes\{.*engine="vllm".*\} 8.589934592e\+09'
    wait_for(lambda: re.search(told, metrics(box.ports["GPU_EXPORTER"])))
    assert 'bakeoff_ksana_pushes_total{engine="sim-ksana"}' in metrics(box.ports["KSANA_EXPORTER"])

    assert box.run("down").returncode == 0
    assert strays.ours(box.state) == []


@pytest.mark.integration
def test_down_inside_a_measured_block_ends_the_race_and_leaves_nothing(ready):
    box = ready
    box.hold(GIB // 4)
    # Short: the paths of sockets are.
    with tempfile.TemporaryDirectory(prefix="bakeoff-down-") as temporary:
        box.environment["TMPDIR"] = temporary
        done = box.run("up")
        assert done.returncode == 0, done.stdout + done.stderr
        command = [str(box.folder / ".venv" / "bin" / "python"), "-m", "loadgen"]
        race = subprocess.Popen(
            [*command, "bench", write_scenario(box, "long", 100_000)],
            cwd=box.folder,
            env=box.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            wait_for(lambda: race.poll() is not None or received(box) >= 20)
            before = received(box)
            held = [Path(line) for line in (box.folder / "held.txt").read_text().splitlines()]
            assert [path.exists() for path in held] == [True, True]
            down = box.run("down")
            said = race.communicate(timeout=300)[0]
        finally:
            race.kill()
            race.communicate()
        del box.environment["TMPDIR"]
        assert down.returncode == 0, down.stdout + down.stderr
        assert "ended: A race" in down.stdout and "what it had measured stays" in down.stdout
        assert race.returncode == 130 and "Interrupted" in said, said
        assert "Traceback" not in said + down.stdout + down.stderr
        assert list(Path(temporary).iterdir()) == []
    assert strays.ours(box.state) == []
    assert [path.exists() for path in held] == [False, False]
    (run,) = (RunFolder.find(box.folder / "runs", path.name) for path in (box.folder / "runs").glob("*-long"))
    data = run.load()
    assert data.manifest.status == "interrupted" and data.bad_lines == []
    (block,) = data.blocks
    assert block.facts.status == "interrupted" and len(block.records) >= before >= 20
    assert all(record.ok for record in block.records if not record.aborted)
    report = box.run("report", str(run.path), module="loadgen")
    assert report.returncode == 0, report.stdout + report.stderr


def received(box):
    """Requests that the race's block has the records of."""
    with contextlib.suppress(OSError, ValueError):
        with urllib.request.urlopen(f"http://127.0.0.1:{box.ports['LOCUST']}/bakeoff/block", timeout=10) as answer:
            told = json.loads(answer.read())
        return told["received"] if told["state"] == "running" else 0
    return 0


@pytest.mark.integration
def test_a_second_seat_is_on_the_second_card_and_goes_where_a_race_places_it(ready):
    box = ready
    box.hold(GIB // 4, cards=2)
    box.environment["BAKEOFF_VLLM_2_PORT"] = str(unused_ports(1)[0])
    done = box.run("up")
    assert done.returncode == 0, done.stdout + done.stderr
    host = box.host()
    assert host.running() == ["vllm"]
    vllm = host.describe("vllm")
    assert (vllm["gpus"], vllm["placement"]["gpu_uuids"]) == ({"device_ids": ["0"]}, ["GPU-0"])

    core = str(max(available_cpus()))
    declare_places(box.folder, {"vllm-2": Place(("GPU-1",), core), "vllm": Place(("0",))}, host)
    assert host.running() == []
    host.start("vllm")
    # Its card would be waited for; the second's is free.
    box.hold(9 * GIB, cards=2)
    host.start("vllm-2", alone=False)
    assert sorted(host.running()) == ["vllm", "vllm-2"]
    twin = host.describe("vllm-2")
    assert (twin["gpus"], twin["placement"]["gpu_uuids"]) == ({"device_ids": ["1"]}, ["GPU-1"])
    assert twin["placement"]["cpus"] == core and twin["pid"] != host.describe("vllm")["pid"]

    done = box.run("up", "--engine", "none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_places(box.folder) == {} and host.running() == []

    box.hold(GIB // 4, cards=2)
    done = box.run("up", "--scenario", write_scenario(box, "pair", 3, tensor_parallel_size=2))
    assert done.returncode == 0, done.stdout + done.stderr
    assert host.describe("vllm")["gpus"] == {"device_ids": ["0", "1"]}
    assert re.search(r"^vllm .* 0,1 *$", done.stdout, re.M) and re.search(r"^vllm-2 .* 1 *$", done.stdout, re.M)
    race = box.run("bench", write_scenario(box, "four", 3, data_parallel_size=4), module="loadgen")
    assert race.returncode == 2 and "data_parallel_size 4 takes 4 cards" in race.stderr + race.stdout
    assert host.running() == ["vllm"]
    assert box.run("down").returncode == 0
    assert strays.ours(box.state) == []
