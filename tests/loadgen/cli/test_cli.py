"""The command line: help, exit codes, and that a user never sees a traceback."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loadgen.cli.console import open_console
from loadgen.scenario.file import shipped_scenarios

TOP = Path(__file__).resolve().parents[3]
COMMANDS = (
    "run",
    "bench",
    "preflight",
    "report",
    "explain",
    "compare",
    "export",
    "dashboards",
    "scenarios",
    "calibrate",
)


def in_a_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadgen", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=TOP, check=False)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", ["60", "120"])
def test_every_command_explains_itself(loadgen, command, columns):
    done = loadgen(command, "--help", COLUMNS=columns)
    assert done.returncode == 0 and not done.stderr
    assert f"bakeoff {command}" in done.stdout


def test_without_a_command_the_help_is_shown():
    done = in_a_process()
    assert done.returncode in (0, 2)
    assert all(command in done.stdout + done.stderr for command in COMMANDS)


def test_the_flags_of_run_that_others_rely_on(loadgen):
    text = loadgen("run", "--help").stdout
    flags = "base-url model api concurrency requests prompt-tokens output-tokens tokenizer duration json records"
    assert all(re.search(rf"--{flag}\b", text) for flag in flags.split())


def test_the_flags_of_bench_that_others_rely_on(loadgen):
    text = loadgen("bench", "--help").stdout
    assert all(f"--{flag}" in text for flag in ["engine", "api", "model", "tokenizer", "runs-dir", "requests", "seed"])


def test_scenarios_are_listed_with_their_question(loadgen):
    done = loadgen("scenarios")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == shipped_scenarios()
    width = max(map(len, shipped_scenarios()))
    assert all(line[width : width + 2] == "  " and line[width + 2 :].strip() for line in done.stdout.splitlines())


def test_experiments_are_a_group_of_their_own(loadgen):
    done = loadgen("scenarios", "--group", "internals")
    assert [line.split()[0] for line in done.stdout.splitlines()] == shipped_scenarios("internals")
    assert re.search(r"^internals-eviction-circle +7a +Which", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scenarios", "--group", "x"], "There is no group 'x' of scenarios. Groups: internals."),
        (["fly"], "No such command 'fly'"),
        (["rum"], "No such command 'rum'. Did you mean 'run'? See `bakeoff"),
        (["run"], "Missing option '--base-url'"),
        (["run", "--base-url"], "requires an argument"),
        (["bench", "no-such-scenario"], "There is no scenario 'no-such-scenario'"),
        (["bench", "smok"], "Did you mean 'smoke'?"),
        (["bench", "smoke", "--engine", "nourl"], "give NAME=URL"),
        (["bench", "smoke", "--engine", "=http://x"], "give NAME=URL"),
        (["bench", "smoke", "--engine", "a/b=http://x"], "its name must be letters, digits"),
        (["bench", "smoke", "--engine", "a=http://x", "--engine", "a=http://y"], "the name 'a' is taken twice"),
        (["bench", "smoke", "--engine", "a=ftp://x"], "is not a usable URL"),
        (["bench", "smoke", "--engine", "a=http://x", "--api-key-env", "NO_SUCH"], "is not set"),
        (["bench", "smoke", "--requests", "0"], "--requests: must be 1 or more, not '0'"),
        (["bench", "smoke", "--engine", "a=http://x", "--runs-dir", "/dev/null"], "(/dev/null is no folder)"),
        (["bench", "smoke", "--engine", "a=http://x", "--fail-if", "errors > 150%"], "no more than 100%"),
        (["bench", "smoke", "--engine", "a=http://x", "--junit", "gate.xml"], "There is no threshold to write about"),
        (["bench", "smoke", "--engine", "a=http://x", "--until-decided"], "needs two engines, and 1 race"),
        (["bench", "smoke", "--engine", "a=http://x", "--starts", "2"], "needs engines that Bakeoff starts itself"),
        (["run", "--base-url", "http://x", "--batch", "4", "--rate", "2"], "--batch is a load of its own"),
        (["run", "--base-url", "http://x", "--batch", "4", "--concurrency", "2"], "--batch is a load of its own"),
        (["bench", "--until-decided", "foo"], "'foo' is neither a number of repeats nor a scenario"),
        (["bench", "--until-decided", "1"], "--until-decided: must be 2 or more, not '1'"),
        (["bench", "capacity", "--engine", "a=http://x", "--until-decided"], "a search for capacity extends its steps"),
        (["bench", "capacity", "--repeats", "3"], "--repeats 3: `find_capacity` searches each engine once"),
        (["report", "no-such-run"], "There is no run 'no-such-run'"),
        (["report", "r" * 300], "File name too long"),
        (["export", "r" * 300, "--format", "vllm"], "File name too long"),
        (["run", "--base-url", "http://127.0.0.1:9", "--json", "j" * 300], "File name too long"),
        (["report", "--lang", "fr"], "--lang: 'fr' is not one of 'en', 'zh'. See `bakeoff report --help`."),
    ],
)
def test_bad_usage_is_one_message_and_exit_code_2(loadgen, arguments, words, tmp_path):
    done = loadgen(*arguments, BAKEOFF_RUNS_DIR=str(tmp_path))
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in re.sub(r"\s+", " ", done.stderr)
    assert not list(tmp_path.iterdir())


def test_a_report_of_no_run_says_how_to_make_one(tmp_path):
    done = in_a_process("report", "--runs-dir", str(tmp_path))
    assert done.returncode == 2 and "There is no run in" in done.stderr


def test_standard_output_on_a_full_disk_is_told():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "loadgen", "scenarios"]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, cwd=TOP, check=False
        )
    assert (done.returncode, done.stderr) == (2, "Error: standard output: No space left on device.\n")


def test_a_reader_of_the_output_who_leaves_is_no_error():
    command = [sys.executable, "-m", "loadgen", "--help"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        done = subprocess.run(
            command, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=300, cwd=TOP, check=False
        )
    assert done.stderr == ""


@pytest.mark.parametrize(("columns", "width"), [("40", 140), ("80", 80), ("200", 200)])
def test_a_narrow_terminal_cuts_nothing_from_a_file(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    assert open_console().width == width


def test_help_that_no_line_of_is_cut(loadgen):
    """Each command's first sentence fits beside its name."""
    listed = loadgen("--help", COLUMNS="80").stdout
    assert "..." not in listed.partition("Commands:")[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_while_it_waits_for_the_endpoint(number):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = subprocess.Popen(
            [sys.executable, "-m", "loadgen", "run", "--base-url", f"127.0.0.1:{silent.getsockname()[1]}"],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": TOP},
        )
        silent.settimeout(300)
        connection, _ = silent.accept()
        time.sleep(0.2)
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
        connection.close()
    assert process.returncode == 130
    assert (out, err) == ("", "Interrupted.\n")


def test_gevent_patches_before_anything_else_is_imported():
    """A module imported before gevent's patch keeps the blocking sockets: gevent warns of the worst of it."""
    code = (
        "import json, sys, warnings; warnings.simplefilter('error')\n"
        "import loadgen.cli.app\n"
        "before = [name for name in ('ssl', 'requests', 'urllib3', 'locust', 'gevent') if name in sys.modules]\n"
        "warnings.simplefilter('default'); from gevent import monkey; monkey.patch_all()\n"
        "import socket, ssl, threading, gevent.socket\n"
        "print(json.dumps([before, socket.socket is gevent.socket.socket]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=TOP, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[], True]
    assert "MonkeyPatchWarning" not in done.stderr
