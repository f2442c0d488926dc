"""The wheel, installed where there is no checkout: it measures, races and reports with all that these need."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from loadgen.errors import CLIENT_LIMITED, OK, WRONG_USAGE
from tests.fake_prometheus import FakePrometheus, matrix, success
from tests.simulator.client import running

TOP = Path(__file__).resolve().parents[1]
FAST = ("--ttft-ms", "5", "--tpot-ms", "1")
pytestmark = [pytest.mark.integration]
Bakeoff = Callable[..., subprocess.CompletedProcess[str]]


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BAKEOFF_"))}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=800, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built by way of the source archive, as `make dist` does, from a copy: the build writes beside its sources."""
    folder, copy = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("checkout")
    listing = ("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in filter(None, run(*listing, cwd=TOP).stdout.split("\0")):
        if (TOP / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, copy / name)
    done = run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def bakeoff(wheel, tmp_path_factory) -> Bakeoff:
    """The command of an environment that holds the wheel and sees these tests' packages, but no checkout."""
    folder = tmp_path_factory.mktemp("environment")
    python, script = folder / "bin" / "python", folder / "bin" / "bakeoff"
    assert run(sys.executable, "-m", "venv", "--without-pip", folder).returncode == 0
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    done = run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel)
    assert done.returncode == 0, done.stdout + done.stderr

    def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        done = run(script, *arguments, cwd=cwd)
        assert "Traceback" not in done.stdout + done.stderr
        return done

    return call


def test_the_wheel_holds_what_is_no_python(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(
        ["git", "-C", TOP, "ls-files", "loadgen", "simulator"], capture_output=True, text=True, check=True
    ).stdout.split()
    wanted = {name for name in listed if not name.endswith(".po") and (TOP / name).is_file()}
    assert len(wanted) > 200
    assert wanted <= held
    assert {name.split("/")[0] for name in held} == {"loadgen", "simulator", wheel.name.split("-py3")[0] + ".dist-info"}


def test_a_cell_is_measured(bakeoff, tmp_path):
    with running(*FAST) as server:
        done = bakeoff(
            *("run", "--base-url", server.url, "--concurrency", "2", "--requests", "4", "--prompt-tokens", "32"),
            *("--output-tokens", "8", "--json", "-"),
            cwd=tmp_path,
        )
    assert done.returncode in (OK, CLIENT_LIMITED), done.stdout + done.stderr
    assert json.loads(done.stdout)["requests"] == 4


def test_two_engines_race_and_the_race_is_reported(bakeoff, tmp_path):
    with running(*FAST) as one, running(*FAST) as other:
        done = bakeoff(
            *("bench", "smoke", "--engine", f"a={one.url}", "--engine", f"b={other.url}"),
            *("--requests", "2", "--repeats", "1"),
            cwd=tmp_path,
        )
    assert done.returncode in (OK, CLIENT_LIMITED), done.stdout + done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["command"][:2] == ["bakeoff", "bench"]
    assert manifest["git"] == {} and manifest["packages"]["bakeoff"]
    for options, page, words in (
        ((), "report.html", "Output throughput"),
        (("--lang", "zh"), "report.zh.html", "输出"),
    ):
        done = bakeoff("report", "--brief", *options, cwd=tmp_path)
        assert done.returncode == OK and str(folder / page) in done.stdout, done.stdout + done.stderr
        assert words.lower() in (folder / page).read_text(encoding="utf-8").lower()


def test_the_boards_are_drawn(bakeoff, tmp_path):
    def answer(query: dict[str, str]) -> tuple[int, bytes]:
        if query["path"].endswith("/config"):
            return success({"yaml": "global:\n  scrape_interval: 1s\n"})
        return matrix(({"engine": "a"}, [(float(query["start"]), 1)])) if "start" in query else matrix()

    fake = FakePrometheus()
    fake.answer = answer
    done = bakeoff("dashboards", "--last", "5m", "--prometheus", fake.url, cwd=tmp_path)
    fake.stop()
    assert done.returncode == OK, done.stdout + done.stderr
    assert "<svg" in (tmp_path / "runs" / "dashboards.html").read_text(encoding="utf-8")


def test_without_a_stack_a_race_needs_endpoints(bakeoff, tmp_path):
    done = bakeoff("bench", "smoke", cwd=tmp_path)
    assert done.returncode == WRONG_USAGE
    assert "--engine NAME=URL" in done.stderr
    assert not list(tmp_path.iterdir())
