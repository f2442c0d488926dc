"""The command line where there is no card."""

import os
import subprocess
import sys
from pathlib import Path

from kernels import __main__ as command
from kernels import page

ROOT = Path(__file__).parent.parent.parent


def test_without_a_card_it_says_so_in_one_line_and_what_can_be_done(tmp_path):
    environment = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "kernels", "measure", "--out", str(tmp_path / "data")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("error: no NVIDIA card here, so nothing is measured; `make kernels`")
    assert not (tmp_path / "data").exists()


def test_a_card_without_torch(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 0\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert command.why_not().startswith("no PyTorch here: install it")
    assert "`make attention-page`" in command.why_not()


def test_a_tool_that_fails_leaves_the_measurements_as_they_were(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(command, "why_not", lambda: None)
    monkeypatch.setattr(command, "TOOLS", (("nothing_of_that_name", "bench.json", ()),))
    (tmp_path / "bench.json").write_text("old")
    assert command.measure(tmp_path) == 1
    assert (tmp_path / "bench.json").read_text() == "old"
    assert "kernels.nothing_of_that_name ended with exit status 1" in capfd.readouterr().err


def test_without_a_profiler_the_rest_is_kept(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(command, "why_not", lambda: None)
    monkeypatch.setattr(command, "TOOLS", (("nothing_of_that_name", "profile.json", ()),))
    monkeypatch.setattr(command, "OPTIONAL", ("nothing_of_that_name",))
    (tmp_path / "profile.json").write_text("of another run")
    assert command.measure(tmp_path) == 0
    assert not (tmp_path / "profile.json").exists()
    assert "the page will do without profile.json" in capfd.readouterr().err


def test_a_page_is_written_once(tmp_path):
    for name in ("README.md", "README.zh.md"):
        (tmp_path / name).write_text("<!-- table: setup -->\n<!-- end -->\n")
    changed = {path.relative_to(tmp_path).parts[0] for path in page.write(tmp_path)}
    assert changed == {"figures", "README.md", "README.zh.md"}
    assert page.write(tmp_path) == []


def test_a_file_that_is_not_understood_ends_without_a_traceback(monkeypatch, capsys):
    def broken():
        raise ValueError("bench.json: no")

    monkeypatch.setattr(page, "write", broken)
    assert command.page() == 2
    assert capsys.readouterr().err == "error: bench.json: no\n"
