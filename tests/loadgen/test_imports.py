"""What a process that times requests must not load: its memory, and how soon it starts, are figures of Bakeoff's.

A module that is named here was reached from the traffic side because some module does two things: part that one.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fault_server import FaultServer

TOP = Path(__file__).resolve().parents[2]
NOT_FOR_TRAFFIC = {
    "grafana_client": "marks races in Grafana, in an environment of its own",
    "loadgen.bench.annotations": "marks a race in Grafana",
    "loadgen.boards": "prints pages of what Prometheus knows",
    "loadgen.bench.campaign": "drives a race",
    "loadgen.metrics.summary": "works out figures, with numpy",
    "loadgen.distributed.client_metrics": "is served by the master",
    "loadgen.client.verdict": "judges when the master, or the end of a run, asks",
    "loadgen.distributed.collector": "is the master's",
    "loadgen.runs.manifest": "is written by who starts a run",
    "loadgen.distributed.master": "is the master",
    "loadgen.preflight.phase": "compares engines before a race",
    "loadgen.distributed.planner": "makes the plan that a worker is given",
    "loadgen.report": "reads what a run has left",
    "loadgen.runs.folder": "is kept by the master",
    "loadgen.scenario.file": "is read by who starts a run",
    "loadgen.statistics": "compares runs, with scipy",
    "loadgen.distributed.web_tab": "is served by the master",
    "matplotlib": "draws the report's pictures",
    "niquests": "is Grafana's client's, and would take the place of urllib3",
    "numpy": "works out figures",
    "openai": "asks engines before a race, 20 times as dear as we are",
    "polars": "writes the parquet file of a run that is closed",
    "prometheus_client": "serves the master's metrics",
    "ruamel": "reads scenario files",
    "scipy": "works out intervals",
    "tokenizers": "counts tokens where a plan names a tokenizer, and is loaded then",
}
NOT_FOR_ONE_CELL = {
    "flask": "is Locust's",
    "locust": "spawns the users of a race",
    "requests": "is a layer over urllib3, which suffices to ask an endpoint what it is",
}

WORKER = """
import json, sys
from locust import argument_parser, events
from locust.env import Environment
from locust.runners import WorkerRunner
from loadgen import locustfile
from loadgen.endpoints.endpoint import Endpoint
from loadgen.scenario.cell import Cell
from loadgen.traffic.plan import BlockPlan
from loadgen.endpoints.prompts import PromptRecipe
from loadgen.traffic.block import ClosedLoopUser

runner = WorkerRunner.__new__(WorkerRunner)  # connected to no master
runner.client_id = "worker"
environment = Environment(events=events, user_classes=[locustfile.StreamingUser])
environment.runner = runner
environment.parsed_options = argument_parser.get_parser(default_config_files=[]).parse_args([])
events.init.fire(environment=environment, runner=runner, web_ui=None)
endpoint = Endpoint(name="e", kind="openai", base_url=sys.argv[1], model="fault:normal", api="chat")
recipe = PromptRecipe("text", 0, tuple("abcdefghijklmnopqrstuvwxyz"), (), "")
environment.parsed_options.plan = BlockPlan(
    run_id="r", scenario="s", block="b", engine="e", cell=Cell(8, 4, 1), endpoint=endpoint, recipe=recipe,
    requests=1, warmup_requests=0, seed="1", workers=("worker",)
).model_dump_json()
events.test_start.fire(environment=environment)
ClosedLoopUser(locustfile.StreamingUser.traffic).send()
print(json.dumps(sorted(sys.modules)))
"""
ONE_CELL = """
import json, os, sys
import loadgen.cli.app

class AtTheEnd:
    def find_spec(self, name, path, target=None):
        if name == "loadgen.quick.result":  # all is measured, and figures are made of it
            print(json.dumps(sorted(sys.modules)), flush=True)
            os._exit(0)

sys.meta_path.insert(0, AtTheEnd())
sys.argv = ["loadgen", "run", "--base-url", sys.argv[1], "--model", "fault:normal", "--prompt-tokens", "32",
            "--output-tokens", "4", "--requests", "2", "--warmup-requests", "0"]
loadgen.cli.app.main()
"""


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [(WORKER, NOT_FOR_TRAFFIC), (ONE_CELL, NOT_FOR_TRAFFIC | NOT_FOR_ONE_CELL)],
    ids=["a worker", "one cell"],
)
def test_a_process_that_times_requests_loads_nothing_else(code, forbidden):
    with FaultServer(models=[{"id": "fault:normal"}]) as server:
        done = subprocess.run(
            [sys.executable, "-c", code, server.url], capture_output=True, text=True, cwd=TOP, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert any(request.t_content for request in server.served), "no stream was sent"
    modules = json.loads(done.stdout.splitlines()[-1])
    assert "loadgen.stream.exchange" in modules
    loaded = {name for module in modules for name in forbidden if f"{module}.".startswith(f"{name}.")}
    assert not {name: forbidden[name] for name in loaded}


def test_a_module_has_a_room():
    assert len(list((TOP / "loadgen").glob("*.py"))) <= 10
