"""A machine with a GPU and no Docker, as far as it can be pretended: what `make up` says, starts and refuses."""

import json
import os
import re
import shlex
import shutil
import sys
import time
import urllib.request

import pytest
from typer.testing import CliRunner

from loadgen.errors import UserError
from loadgen.settings import variables
from stack import cli
from stack.choice import Found
from stack.gpu import Gpu
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

SERVER = """\
import os, sys
options = dict(zip(sys.argv[1:], sys.argv[2:]))
argv = ["--host", options["--host"], "--port", options["--port"], "--model", options["--served-model-name"]]
os.chdir(os.environ["BAKEOFF_STACK"] + "/..")
os.execv(sys.executable, [sys.executable, "-m", "simulator", "--ttft-ms", "5", "--tpot-ms", "1", *argv])
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

    def hold(self, used, *processes):
        self.gpus.write_text(json.dumps([{"used": used, "processes": processes}]))


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
    monkeypatch.setattr(cli, "gpus_here", lambda: [Gpu(0, "GPU-0", "NVIDIA H200")])
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


@pytest.mark.integration
def test_engines_take_turns_on_a_gpu(box):
    """Up, bench and down: vLLM by its launcher, and an own command; simulators in both seats."""
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
    done = box.run("up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"stack: plain processes \(.*no.sock.*\), profile gpu \(1 x NVIDIA H200\)", done.stdout)
    assert "vllm: healthy after" in done.stdout and "gpu-exporter: starting" in done.stdout
    facts = box.host().describe("vllm")
    assert facts["gpus"] == {"device_ids": ["0"]} and facts["argv"][facts["argv"].index("--host") + 1] == "127.0.0.1"

    scenario = box.folder / "two.yaml"
    scenario.write_text(
        "name: two\nquestion: Is it raced?\nprompt_tokens: [16]\noutput_tokens: [8]\nload: {concurrency: [1]}\n"
        "requests: 3\nwarmup_requests: 0\nrepeats: 1\nseed: 1\nserving: {max_batch_size: 16}\n"
    )
    race = box.run("bench", str(scenario), module="loadgen")
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
