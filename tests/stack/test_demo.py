"""`make demo`'s script, with a Python in place of ours that writes down what it is asked for."""

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from stack.runtime import TAKEN

HERE = Path(__file__).resolve().parents[2]
FAKE = """#!/bin/sh
# One line for each command; a command's exit status, or a pipe that it waits for, is what a file of its name holds.
[ "$3" != demo-plan ] || { cat plan 2>/dev/null || echo "cpu smoke"; exit; }
echo "$@" "$BAKEOFF_ENGINES" >>said
[ ! -p "wait-$3" ] || cat "wait-$3" >/dev/null
[ ! -e "status-$3" ] || exit "$(cat "status-$3")"
"""


@pytest.fixture
def clone(tmp_path):
    (tmp_path / "stack").mkdir()
    shutil.copy(HERE / "stack" / "demo.sh", tmp_path / "stack")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE, encoding="utf-8")
    python.chmod(0o755)
    return tmp_path


def begin(clone):
    return subprocess.Popen(
        [clone / "stack" / "demo.sh"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=clone,
        start_new_session=True,
    )  # fmt: skip


def steps(clone):
    """The words of each command that was called, such as `up`."""
    lines = (clone / "said").read_text(encoding="utf-8").splitlines()
    return [words[2] for words in map(str.split, lines)]


def test_a_demo_takes_down_what_it_started(clone):
    demo = begin(clone)
    said, _ = demo.communicate(timeout=300)
    assert demo.returncode == 0 and re.search(r"done in \d+ min", said)
    assert steps(clone) == ["check", "setup", "up", "bench", "report", "down"]


def test_a_demo_races_the_engines_of_its_plan_only(clone, monkeypatch):
    monkeypatch.setenv("BAKEOFF_ENGINES", "mine")
    (clone / "plan").write_text("gpu gpu-smoke vllm,ksana")
    demo = begin(clone)
    demo.communicate(timeout=300)
    said = (clone / "said").read_text(encoding="utf-8").splitlines()
    assert said[0] == "-m stack check --runtime processes --profile gpu --new --free-ports vllm,ksana"
    assert said[3].startswith("-m loadgen bench gpu-smoke ") and said[3].endswith(" vllm,ksana")


@pytest.mark.parametrize(
    ("step", "status", "called"),
    [
        ("check", TAKEN, ["check"]),
        ("setup", 2, ["check", "setup"]),
        ("up", TAKEN, ["check", "setup", "up"]),
        ("up", 2, ["check", "setup", "up", "down"]),
        ("bench", 1, ["check", "setup", "up", "bench", "down"]),
    ],
)
def test_a_stack_that_it_did_not_start_is_left_alone(clone, step, status, called):
    (clone / f"status-{step}").write_text(str(status), encoding="utf-8")
    demo = begin(clone)
    demo.communicate(timeout=300)
    assert demo.returncode == (2 if step == "check" else status)
    assert steps(clone) == called


def test_a_second_demo_in_a_clone_leaves_the_first_alone_and_says_who_holds_it(clone):
    os.mkfifo(clone / "wait-bench")
    first = begin(clone)
    with (clone / "wait-bench").open("w", encoding="utf-8"):  # opened when the first one is in its race
        second = begin(clone)
        said, _ = second.communicate(timeout=300)
        assert second.returncode == 2
        assert f"process {first.pid} of" in said and "left alone" in said and "Ctrl-C" in said
        assert "down" not in steps(clone)
        os.killpg(first.pid, signal.SIGINT)
    first.communicate(timeout=300)
    assert first.returncode == 130
    assert steps(clone)[-1] == "down"
    (clone / "wait-bench").unlink()
    third = begin(clone)
    third.communicate(timeout=300)
    assert third.returncode == 0
