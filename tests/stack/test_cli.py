"""The one command line, with recorders in place of both runtimes."""

import json

import pytest
from typer.testing import CliRunner

from loadgen.errors import UserError
from loadgen.hosts.cards import Card
from loadgen.hosts.stack_file import DockerStack, SupervisorStack, read_stack, write_stack
from stack import cli
from stack.choice import Found
from stack.processes.runtime import ProcessRuntime
from stack.runtime import State


class Recorder:
    """A runtime that writes down what it is asked for."""

    def __init__(self, name, calls):
        self.name, self.calls, self.fails = name, calls, False

    def can_set_up(self):
        return ["llamacpp", "vllm"]

    def setup(self, engines, *, verify=False):
        self.calls.append((self.name, "setup", list(engines)))

    def up(self, engine, serving, *, new=False, move_ports=False):
        self.calls.append((self.name, "up", engine, serving))
        return ["something is left out"]

    def down(self, *, volumes):
        self.calls.append((self.name, "down", volumes))
        if self.fails:
            raise UserError("it does not end")

    def states(self):
        return [State("engine", "ready", "17", 75, ("http://127.0.0.1:1",)), State("worker", "created", "", None, ())]

    def logs(self, name, lines, *, follow):
        self.calls.append((self.name, "logs", name, lines, follow))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A checkout of nothing, on a machine with Docker; gives the calls."""
    calls = []
    made = {name: Recorder(name, calls) for name in ("docker", "processes")}
    monkeypatch.delenv("BAKEOFF_RUNTIME", raising=False)
    monkeypatch.setattr(cli, "CHECKOUT", tmp_path)
    monkeypatch.setattr(cli, "look_around", lambda: Found(no_docker=""))
    monkeypatch.setattr(cli, "gpus_here", lambda: "no NVIDIA driver here")
    monkeypatch.setattr(cli, "open_runtime", lambda name, profile="cpu", offline=False: made[name])
    (tmp_path / ".bakeoff" / "stack").mkdir(parents=True)
    return tmp_path, made, calls


def run(*words):
    return CliRunner().invoke(cli.app, words)


def containers(tmp_path):
    write_stack(tmp_path, DockerStack(project="p", profile="sim", urls={}, runs_dir=tmp_path, inside_runs_dir="/runs"))


@pytest.mark.parametrize(
    ("words", "serving"),
    [
        (("up",), ""),
        (("up", "--engine", "none"), None),
        (("up", "--engine", "none", "--scenario", "smoke"), ""),
        (("up", "--scenario", "seed-matrix"), "dtype"),
    ],
)
def test_engines_keep_their_settings_unless_one_is_started_or_a_scenario_named(place, words, serving):
    _, _, calls = place
    done = run(*words, "--runtime", "processes")
    assert done.exit_code == 0, done.output
    ((name, _, _, told),) = calls
    assert name == "processes"
    assert told == serving or (serving == "dtype" and "dtype" in json.loads(told))
    assert "something is left out" in done.output and "1 min 15 s" in done.output


def test_what_is_up_is_what_is_meant(place):
    folder, _, calls = place
    write_stack(folder, SupervisorStack(socket=folder / "s", urls={}, engines={}))
    assert run("logs", "llamacpp", "-n", "3", "--no-follow").exit_code is not None
    containers(folder)
    run("logs")
    assert calls == [("processes", "logs", "llamacpp", 3, False), ("docker", "logs", "locust-master", 50, True)]


def test_setup_takes_of_a_scenario_what_can_be_set_up(place):
    _, _, calls = place
    run("setup", "--runtime", "processes", "--scenario", "seed-matrix")
    run("setup", "--runtime", "processes", "--engine", "llamacpp")
    assert [call[2] for call in calls] == [["vllm"], ["llamacpp"]]


def test_an_interrupted_up_says_how_it_goes_on_or_ends(place, monkeypatch):
    def up(self, *words, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Recorder, "up", up)
    done = run("up", "--runtime", "processes")
    assert done.exit_code == 130 and "`make up` goes on with what was begun, `make down` ends it" in done.output


def test_down_ends_both_where_it_is_not_known_what_is_up(place):
    _, made, calls = place
    made["processes"].fails = True
    assert isinstance(run("down", "--volumes").exception, UserError)
    assert calls == [("processes", "down", True), ("docker", "down", True)]


def test_down_ends_one_where_it_is_known(place):
    folder, _, calls = place
    containers(folder)
    assert run("down").exit_code == 0
    assert run("down", "--runtime", "processes").exit_code == 0
    assert calls == [("docker", "down", False), ("processes", "down", False)]


def test_plain_processes_leave_what_tells_of_containers(place):
    folder, _, _ = place
    containers(folder)
    ProcessRuntime(folder).down(volumes=False)
    assert isinstance(read_stack(folder), DockerStack)


def test_the_old_name_of_a_runtime_is_refused(place):
    for words in (("up",), ("down",), ("setup",)):
        error = run(*words, "--runtime", "embedded").exception
        assert str(error) == "RUNTIME=embedded is now called RUNTIME=processes"


def test_a_run_that_there_is_not_is_called_a_run(place):
    _, _, calls = place
    for command in ("setup", "up"):
        error = run(command, "--runtime", "processes", "--run", "nosuch").exception
        assert str(error).startswith("There is no run 'nosuch'") and "scenario" not in str(error)
    assert not calls


H200 = [Card(0, "GPU-0", "NVIDIA H200")]


@pytest.mark.parametrize(
    ("gpus", "engines", "own", "model", "plan", "said"),
    [
        ("no NVIDIA driver here", ["llamacpp", "vllm"], "", "", "cpu smoke", ""),
        (H200, ["vllm"], "", "", "cpu smoke llamacpp,vllm", "no model is named for the GPU's engines"),
        (H200, ["vllm"], "", "a/b", "gpu gpu-graphs vllm", "vLLM without and with CUDA graphs"),
        (H200, ["vllm", "ksana"], "", "a/b", "gpu gpu-smoke vllm,ksana", "races vllm and ksana"),
        (H200, ["mine"], "MINE", "a/b", "cpu smoke llamacpp,vllm", "mine is the only engine on the GPU here"),
        (H200, ["vllm", "mine"], "MINE", "", "cpu smoke llamacpp,vllm", "mine is the only engine on the GPU here"),
        (H200, ["vllm", "mine"], "MINE", "a/b", "gpu gpu-smoke vllm,mine", "races vllm and mine"),
        (H200, ["vllm"], "VLLM", "a/b", "cpu smoke llamacpp", "vllm is the only engine on the GPU here"),
        (H200, ["ksana"], "", "a/b", "cpu smoke llamacpp,vllm", "ksana is the only engine on the GPU here"),
    ],
    ids=["no-gpu", "no-model", "vllm", "two", "own", "own-no-model", "own-and-vllm", "own-vllm", "ksana"],
)
def test_a_demo_races_what_is_there(place, monkeypatch, gpus, engines, own, model, plan, said):
    _, made, _ = place
    monkeypatch.setattr(cli, "gpus_here", lambda: gpus)
    monkeypatch.setattr(cli, "supported", lambda _: None)
    monkeypatch.setenv("BAKEOFF_MODEL", model)
    for part, value in {"COMMAND": "serve", "KIND": "vllm", "PORT": "8105"}.items() if own else ():
        monkeypatch.setenv(f"BAKEOFF_ENGINE_{own}_{part}", value)
    monkeypatch.setattr(made["processes"], "can_set_up", lambda: engines)
    done = run("demo-plan")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == plan and said in done.stderr
