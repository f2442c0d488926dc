"""What a race ends with: its exit code, and how to go on."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from loadgen.bench.end import resume_command, show_partial, show_whole
from loadgen.client.verdict import ClientVerdict
from loadgen.endpoints.seats import Seat
from loadgen.runs.folder import RunFolder
from loadgen.runs.resume import OWN_COMMAND
from tests.loadgen.report.synthetic_run import SyntheticRun

LIMITED = ClientVerdict(True, ("TTFT may be off by up to 8.1 ms",), 8.1, 1.0, 0.0, requests=5)


def ended(folder, engines, limited, *, whole=True, error=None):
    """The exit code and the output of a race in which the blocks of some engines were client-limited."""
    run = SyntheticRun(engines=engines, prompts=(64,), concurrencies=(1,), requests=5)
    for engine in engines:
        run.add_block(engine, run.cells[0], error=error, error_share=0.2).facts.client = (
            LIMITED if engine in limited else None
        )
    run.end("complete")
    out = io.StringIO()
    code = show_whole(run.write(folder), None, whole, Console(file=out, width=200))
    return code, out.getvalue()


@pytest.mark.parametrize(
    ("engines", "limited", "code"),
    [
        (["a", "b"], [], 0),
        (["a", "b"], ["b"], 6),
        (["a", "b"], ["a", "b"], 6),
        (["a"], [], 0),
        (["a"], ["a"], 6),
    ],
)
def test_a_race_that_decides_nothing_for_the_load_generators_sake(tmp_path, engines, limited, code):
    found, output = ended(tmp_path, engines, limited)
    assert found == code
    assert output.count("load generator was the limit") == (code == 6)


def test_what_was_not_completed_or_failed_comes_first(tmp_path):
    assert ended(tmp_path / "x", ["a", "b"], ["a"], whole=False)[0] == 1
    code, output = ended(tmp_path / "y", ["a"], ["a"], error=("http_503", "overloaded"))
    assert code == 1 and "measured requests failed" in output


def shown(folder, run):
    out = io.StringIO()
    show_partial(run.write(folder), None, "the command", Console(file=out, width=200))
    return out.getvalue()


def test_a_race_that_broke_off(tmp_path):
    run = SyntheticRun(engines=["a"], prompts=(64,), concurrencies=(1,), requests=5)
    run.end("failed")
    nothing = shown(tmp_path / "x", run)
    assert nothing.startswith("Nothing was measured; ") and "the command" not in nothing
    run.add_block("a", run.cells[0])
    something = shown(tmp_path / "y", run)
    assert "What was measured is in" in something and "go on with `the command`" in something


def test_advice_names_the_commands_that_the_user_works_with(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "r")
    assert resume_command(folder, None, 1) == f"bakeoff bench --resume {folder.path}"
    assert f"`bakeoff report {tmp_path}" in ended(tmp_path / "x", ["a", "b"], [])[1]
    monkeypatch.setenv("MAKELEVEL", "1")
    assert resume_command(folder, None, 1) == f"make bench RUN={folder.path}"
    assert f"`make report RUN={tmp_path}" in ended(tmp_path / "y", ["a", "b"], [])[1]


def test_the_command_that_goes_on_is_whole(tmp_path):
    folder = RunFolder(tmp_path / "my runs" / "r")
    seats = [Seat(name=name, base_url=f"http://{name}", model="m", api="chat") for name in "ab"]
    assert resume_command(folder, seats, 2) == (
        f"bakeoff bench --resume '{folder.path}' --engine a=http://a,model=m,api=chat "
        "--engine b=http://b,model=m,api=chat --workers 2"
    )
    seats = [Seat(name="a", base_url="http://a", metrics="http://x:9103/metrics")]
    command = resume_command(RunFolder(Path("r")), seats, 1, "http://x:9102/metrics")
    assert command == (
        "bakeoff bench --resume r --engine a=http://a,metrics=http://x:9103/metrics --gpu-metrics http://x:9102/metrics"
    )
    assert OWN_COMMAND.fullmatch(command)
