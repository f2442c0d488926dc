"""Marking a race in Grafana, through the program that does it and without: nothing of it may harm the race."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from rich.console import Console

from loadgen.bench import annotations as module
from loadgen.bench import race as bench
from loadgen.bench.annotations import ENVIRONMENT, PROGRAM, Annotations
from loadgen.bench.listener import Listener, Listeners
from loadgen.bench.progress import BenchProgress
from loadgen.client.verdict import ClientVerdict
from loadgen.distributed.status import BlockStatus
from loadgen.errors import UserError
from loadgen.runs.manifest import BlockFacts, Manifest, Session
from loadgen.scenario.model import Block, Cell
from loadgen.settings import Paths
from stack import setup
from tests.grafana.fake_grafana import FAULTS, PASSWORD, FakeGrafana
from tests.loadgen.bench.races import wait_for

CHECKOUT = Path(__file__).resolve().parents[3]
RUN = "20261122-120000-tiny"
CELL = Cell(32, 8, 2)


def manifest():
    return Manifest(run_id=RUN, started_at=1000.0)


def facts(block, attempt=1, status="complete", reason=None, start=1001.0, end=1011.5, limited=False):
    return BlockFacts(
        id=block.id,
        record_id=block.id if attempt == 1 else f"{block.id}.a{attempt}",
        engine=block.engine,
        cell=block.cell.id,
        repeat=block.repeat,
        attempt=attempt,
        users=2,
        warmup_requests=1,
        measured_requests=10,
        status=status,
        reason=reason,
        started_at=start,
        ended_at=end,
        client=ClientVerdict(limited, (), 0.0, 1.0, 0.0),
    )


def progress(block):
    return BlockStatus(block=block.id)


def marks(url, warnings, checkout=CHECKOUT, run=None):
    return Annotations(
        run or manifest(), "Does it work?", url=url, password=PASSWORD, checkout=checkout, warn=warnings.append
    )


# Without Grafana's client: what the program does is nothing, or wrong.


@pytest.fixture
def program(tmp_path):
    """A checkout whose program is these lines."""

    def write(text):
        python = tmp_path / ENVIRONMENT / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
        (tmp_path / PROGRAM).parent.mkdir(parents=True)
        (tmp_path / PROGRAM).write_text(text)
        return tmp_path

    return write


@pytest.fixture(autouse=True)
def long_end(monkeypatch):
    """What is said to the end is waited for, however busy the machine is."""
    monkeypatch.setattr(module, "END_LIMIT_S", 120.0)


def race(marked, blocks=3, polls=2):
    for number in range(1, blocks + 1):
        block = Block("vllm", CELL, number)
        for _ in range(polls):
            marked.block(block, number, blocks, progress(block))
        marked.block_ended(block, number, blocks, facts(block))


ECHO = "import sys\nopen(sys.argv[1], 'w').writelines(sys.stdin)\n"


def test_what_the_program_is_told(program, tmp_path):
    checkout, warnings, run = program(ECHO), [], manifest()
    block, told = Block("vllm", CELL, 1), tmp_path / "told.jsonl"
    with marks(str(told), warnings, checkout, run) as marked:
        for _ in range(3):
            marked.block(block, 1, 1, progress(block))
        marked.block_ended(block, 1, 1, facts(block, status="failed", reason="vllm died"))
        marked.block_ended(block, 1, 1, facts(block, attempt=2, start=1020.0, end=1030.0, limited=True))
        run.status = "failed"
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    common = ["bakeoff", f"run:{RUN}"]
    own = [*common, "block", "engine:vllm", "cell:p0032-o0008-c002"]
    assert [(line["key"], line["tags"]) for line in lines] == [
        ("run", [*common, "run"]),
        (f"block {block.id}", own),
        (f"block {block.id}", own),
        (f"block {block.id}.a2", own),
        ("run", [*common, "run"]),
    ]
    assert [line["time"] for line in lines] == [1_000_000, lines[1]["time"], 1_001_000, 1_020_000, 1_000_000]
    assert [line["end"] for line in lines[:4]] == [None, None, 1_011_500, 1_030_000]
    for line in (lines[1], lines[4]):
        assert abs((line["end"] or line["time"]) / 1000 - time.time()) < 600
    assert [line["text"] for line in lines] == [
        f"{RUN}: running. Does it work?",
        "vllm p0032-o0008-c002 repeat 1: running",
        "vllm p0032-o0008-c002 repeat 1: failed in 10.5 s (vllm died)",
        "vllm p0032-o0008-c002 repeat 1, attempt 2: complete in 10.0 s, client-limited",
        f"{RUN}: failed. Does it work?",
    ]
    assert warnings == []


def test_a_run_that_is_gone_on_with_is_marked_from_there(program, tmp_path):
    run = manifest()
    run.sessions = [Session(started_at=1000.0, ended_at=1100.0), Session(started_at=2000.0)]
    told = tmp_path / "told.jsonl"
    with marks(str(told), [], program(ECHO), run):
        pass
    assert [json.loads(line)["time"] for line in told.read_text().splitlines()] == [2_000_000, 2_000_000]


def test_long_texts_keep_a_line_within_what_a_pipe_takes_at_once(program, tmp_path):
    checkout, told = program(ECHO), tmp_path / "told.jsonl"
    block = Block("e" * 120, CELL, 1)
    with marks(str(told), [], checkout) as marked:
        marked.block_ended(block, 1, 1, facts(block, status="failed", reason="ß\n" * 5000))
    lines = told.read_bytes().splitlines()
    assert len(lines) == 3
    assert max(map(len, lines)) < 4096
    assert all(len(tag) <= 100 for tag in json.loads(lines[1])["tags"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ended by itself"),
        ("import sys\nsys.exit('broken')", "ended by itself"),
        ("syntax error", "ended by itself"),
        ("import time\ntime.sleep(3600)", "did not take all within"),
        ("print('it is so', flush=True)\nimport sys\nsys.stdin.read()", "it is so"),
        ("print('it is so\\nand so', flush=True)\nimport time\ntime.sleep(3600)", "it is so"),
    ],
)
def test_a_program_that_does_not_work_costs_one_warning(program, text, said, monkeypatch):
    warnings = []
    if "3600" in text:
        monkeypatch.setattr(module, "END_LIMIT_S", 1.0)
    with marks("http://127.0.0.1:1", warnings, program(text)) as marked:
        process = marked._program.process
        if said == "ended by itself":
            process.wait(120)
        race(marked)
        if "print" in text:
            wait_for(lambda: race(marked, blocks=1) or warnings, what="the warning")
    assert len(warnings) == 1
    assert said in warnings[0]
    assert "The race does without." in warnings[0]
    assert process.poll() is not None


def test_without_its_environment_there_is_one_warning(tmp_path):
    warnings = []
    with marks("http://127.0.0.1:1", warnings, tmp_path) as marked:
        race(marked)
    assert len(warnings) == 1
    assert "is not set up" in warnings[0]


def test_an_environment_that_cannot_be_run_is_one_warning(tmp_path):
    warnings = []
    python = tmp_path / ENVIRONMENT / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("not a program")
    with marks("http://127.0.0.1:1", warnings, tmp_path) as marked:
        race(marked)
    assert len(warnings) == 1
    assert "does not start" in warnings[0]


def test_a_program_that_is_stopped_never_holds_up_the_race(program, monkeypatch):
    """Far more lines than a pipe holds: they are given up, and nobody waits."""
    monkeypatch.setattr(module, "END_LIMIT_S", 1.0)
    warnings = []
    with marks("http://127.0.0.1:1", warnings, program("import sys\nsys.stdin.read()")) as marked:
        psutil.Process(marked._program.process.pid).suspend()
        race(marked, blocks=2000)
    assert len(warnings) == 1
    assert "does not take what it is told" in warnings[0]


def test_the_password_is_in_no_command_line_and_no_warning(program, tmp_path):
    warnings = []
    checkout = program(
        "import os, sys\nprint(len(os.environ['GRAFANA_PASSWORD']), os.environ['NO_PROXY'], flush=True)\n"
        "sys.stdin.read()"
    )
    with marks("http://127.0.0.1:1", warnings, checkout) as marked:
        assert PASSWORD not in " ".join(psutil.Process(marked._program.process.pid).cmdline())
    assert warnings[0].count(f"{len(PASSWORD)} *") == 1
    assert PASSWORD not in warnings[0] + (checkout / module.LOG).read_text()


def test_several_listeners_hear_all():
    heard = []

    class Ear(Listener):
        def message(self, text):
            heard.append(text)

        engine = block = block_ended = lambda self, *said: heard.append(said)

    both = Listeners([Ear(), Ear()])
    block = Block("vllm", CELL, 1)
    both.message("text")
    both.engine("vllm", "starts")
    both.block(block, 1, 2, BlockStatus())
    both.block_ended(block, 1, 2, facts(block))
    assert (
        heard[::2]
        == heard[1::2]
        == ["text", ("vllm", "starts"), (block, 1, 2, BlockStatus()), (block, 1, 2, facts(block))]
    )


# With Grafana's client, in its own environment.


@pytest.fixture(scope="session")
def client():
    """The environment of Grafana's client, as `make up` makes it."""
    try:
        setup.ensure_venv(Paths(CHECKOUT), setup.ANNOTATOR)
    except UserError as error:
        pytest.skip(f"Grafana's client cannot be had: {error}")


@pytest.mark.integration
def test_a_run_as_grafana_has_it(client):
    warnings, run = [], manifest()
    first, second = Block("vllm", CELL, 1), Block("ksana", CELL, 1)
    with FakeGrafana() as grafana:
        with marks(grafana.url, warnings, run=run) as marked:
            marked.block(first, 1, 2, progress(first))
            wait_for(lambda: len(grafana.annotations) == 2, what="the run and the block that run are marked")
            running = dict(grafana.annotations[2])
            marked.block_ended(first, 1, 2, facts(first))
            marked.block_ended(second, 2, 2, facts(second, start=1012.0, end=1015.0))
            run.status = "complete"
        assert running["text"].endswith("running") and running["timeEnd"] >= running["time"] > 1_700_000_000_000
        kept = {annotation["text"]: annotation for annotation in grafana.annotations.values()}
    assert warnings == []
    common = ["bakeoff", f"run:{RUN}"]
    done = "p0032-o0008-c002 repeat 1: complete in"
    assert set(kept) == {f"{RUN}: complete. Does it work?", f"vllm {done} 10.5 s", f"ksana {done} 3.0 s"}
    whole = kept[f"{RUN}: complete. Does it work?"]
    assert (whole["time"], whole["tags"]) == (1_000_000, [*common, "run"])
    assert whole["timeEnd"] > 1_700_000_000_000
    for name, start, end in (("vllm", 1001, 1011.5), ("ksana", 1012, 1015)):
        block = next(annotation for text, annotation in kept.items() if text.startswith(name))
        assert (block["time"], block["timeEnd"]) == (start * 1000, end * 1000)
        assert block["tags"] == [*common, "block", f"engine:{name}", "cell:p0032-o0008-c002"]


@pytest.mark.integration
@pytest.mark.parametrize("fault", FAULTS)
def test_a_grafana_that_fails_costs_one_warning(client, fault):
    warnings = []
    with FakeGrafana("" if fault == "refused" else fault) as grafana:
        if fault == "refused":
            grafana.die()
        with marks(grafana.url, warnings) as marked:
            process = marked._program.process
            race(marked)
            if fault not in ("hang", "refused"):
                wait_for(lambda: grafana.requests, what="a request")
            race(marked)
    assert len(warnings) == 1, warnings
    assert grafana.url in warnings[0]
    assert PASSWORD not in warnings[0]
    assert grafana.annotations == {}
    assert process.poll() is not None
    named = {"401": "Unauthorized", "403": "403", "500": "500", "hang": "Timeout"}
    assert named.get(fault, "") in warnings[0]


@pytest.mark.integration
def test_a_grafana_that_dies_midway_and_comes_back(client):
    warnings, block, later = [], Block("vllm", CELL, 1), Block("vllm", CELL, 2)
    with contextlib.ExitStack() as ends:
        grafana = ends.enter_context(FakeGrafana())
        with marks(grafana.url, warnings) as marked:
            marked.block(block, 1, 2, progress(block))
            wait_for(lambda: len(grafana.annotations) == 2, what="both are marked")
            grafana.die()
            marked.block_ended(block, 1, 2, facts(block))

            def heard():
                marked.block(later, 2, 2, progress(later))
                return warnings

            wait_for(heard, what="the warning")
            again = ends.enter_context(FakeGrafana(port=grafana.port, kept=grafana.annotations))
            marked.block_ended(later, 2, 2, facts(later))
    assert len(warnings) == 1
    assert sorted(again.texts())[1:] == [f"vllm p0032-o0008-c002 repeat {n}: complete in 10.5 s" for n in (1, 2)]
    assert len(again.annotations) == 3


INTERRUPTED = """
import os, sys, time
from pathlib import Path
from loadgen.bench.annotations import Annotations
from loadgen.runs.manifest import Manifest

run = Manifest(run_id="r", started_at=1000.0)
marks = Annotations(run, "?", url=sys.argv[1], password=sys.argv[2], checkout=Path(sys.argv[3]), warn=print)
with marks:
    try:
        print("ready", flush=True)
        time.sleep(3600)
    except KeyboardInterrupt:
        run.status = "interrupted"
"""


@pytest.mark.integration
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_kill_end_the_regions(client, sent):
    """Ctrl-C goes to all processes of the terminal's group, and a killed race says nothing more."""
    with FakeGrafana() as grafana:
        command = [sys.executable, "-c", INTERRUPTED, grafana.url, PASSWORD, str(CHECKOUT)]
        race = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, process_group=0)
        try:
            assert race.stdout.readline() == "ready\n"
            wait_for(lambda: grafana.annotations, what="the mark")
            children = psutil.Process(race.pid).children()
            assert len(children) == 1
            os.killpg(race.pid, sent)
            said, _ = race.communicate(timeout=120)
            psutil.wait_procs(children, timeout=120)
        finally:
            race.kill()
            race.communicate()
        assert not [child for child in children if child.is_running()]
        (annotation,) = grafana.annotations.values()
    assert said == ""
    assert annotation["text"].startswith("r: interrupted" if sent == signal.SIGINT else "r: running")
    assert annotation["timeEnd"] > 1_700_000_000_000


def test_its_client_is_kept_out_of_our_environment_and_images():
    strangers = {"grafana-client", "niquests", "urllib3-future"}
    installed = {distribution.name.lower().replace("_", "-") for distribution in metadata.distributions()}
    assert "urllib3" in installed
    assert not installed & strangers
    locks = [lock for lock in CHECKOUT.glob("**/requirements.lock") if ".bakeoff" not in lock.parts]
    holding = {
        str(lock.relative_to(CHECKOUT))
        for lock in locks
        if strangers & set(re.findall(r"(?m)^([a-z0-9-]+)==", lock.read_text()))
    }
    assert holding == {"grafana/annotator/requirements.lock"}


@pytest.mark.parametrize(("given", "password"), [("BAKEOFF_GRAFANA_PASSWORD=s3cret\n", "s3cret"), ("", "admin")])
def test_a_race_is_marked_where_its_stack_has_a_grafana(program, tmp_path, monkeypatch, given, password):
    """Beside the terminal, and with the password that `make up` gave Grafana, or Grafana's own."""
    monkeypatch.delenv("BAKEOFF_GRAFANA_PASSWORD", raising=False)
    checkout = program(
        "import os, sys\nopen(sys.argv[1], 'w').write(os.environ['GRAFANA_PASSWORD'] + sys.stdin.read())"
    )
    (checkout / ".env").write_text(given)
    told, block, console = tmp_path / "told", Block("vllm", CELL, 1), Console(file=io.StringIO())
    scenario = SimpleNamespace(question="?")
    with bench._watched(SimpleNamespace(grafana_url=str(told)), manifest(), scenario, checkout, console) as listener:
        listener.block_ended(block, 1, 1, facts(block))
    assert told.read_text().startswith(password + "{")
    assert len(told.read_text().splitlines()) == 3
    assert "complete" in console.file.getvalue()
    for stack in (None, SimpleNamespace(grafana_url=None)):
        with bench._watched(stack, manifest(), scenario, checkout, console) as listener:
            assert isinstance(listener, BenchProgress)


def test_an_environment_that_cannot_be_made_is_a_line_and_no_failure(monkeypatch, tmp_path):
    def broken(paths, engine):
        raise UserError(f"installing {engine} failed")

    monkeypatch.setattr(setup, "ensure_venv", broken)
    assert setup.ensure_annotator(Paths(tmp_path)) == [
        "installing grafana failed\nWithout it runs are not marked in Grafana."
    ]
