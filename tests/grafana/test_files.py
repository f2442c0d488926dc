"""`python -m grafana.boards`: what it writes, and what it says when the committed JSON is something else."""

import subprocess
import sys

import pytest

from grafana.boards.files import differences, texts, write
from tests.prometheus.conftest import CHECKOUT


def test_what_was_written_is_what_is_built(tmp_path):
    assert [path.name for path in write(tmp_path)] == sorted(texts())
    assert differences(tmp_path) == {}
    assert write(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("bakeoff.json", lambda path: path.write_text(path.read_text().replace("TTFT p95", "TTFT 95")), "differs"),
        ("bakeoff-gpu.json", lambda path: path.unlink(), "is missing"),
        ("old.json", lambda path: path.write_text("{}"), "belongs to no board"),
    ],
)
def test_a_file_that_is_something_else_is_named_and_mended(tmp_path, name, change, said):
    write(tmp_path)
    change(tmp_path / name)
    ((path, problem),) = differences(tmp_path).items()
    assert path == tmp_path / name and said in problem
    assert [path.name for path in write(tmp_path)] == [name]
    assert differences(tmp_path) == {}


def test_the_command_names_file_and_remedy(tmp_path):
    write(tmp_path)
    (tmp_path / "bakeoff.json").write_text("{}")
    program = (
        "import pathlib, sys; from grafana.boards import __main__ as m; from stack.commands import run_command; "
        "m.FOLDER = pathlib.Path(sys.argv.pop(1)); run_command(m.app)"
    )
    command = [sys.executable, "-c", program, str(tmp_path), "check"]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "bakeoff.json differs" in result.stderr and "make boards" in result.stderr
    assert "Traceback" not in result.stderr


def test_lint_checks_the_boards():
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    lint = makefile.split("\nlint:")[1].split("\n\n")[0]
    assert "grafana.boards check" in lint
