"""Run folders from someone else: they are judged, write nothing outside themselves and ask no network."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadgen.cli.app import UNREADABLE
from loadgen.errors import UserError
from loadgen.report import write_report
from loadgen.runs.folder import JSONL, MANIFEST, RunFolder
from tests.loadgen.distributed.web import serve
from tests.loadgen.known_run import Truth, known_run

Spoil = Callable[[dict[str, Any]], object]
ESC = "\x1b]0;OWNED\x07\x1b[2J\x1b[31mx[bold red]y[/][link=http://evil]z[/link]\x9b2J"


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> RunFolder:
    truths = {"one": Truth(), "two": Truth()}
    return known_run(tmp_path_factory.mktemp("honest"), "base", truths=truths, repeats=2, requests=12)


@pytest.fixture
def copy(honest, tmp_path) -> Path:
    """A copy that a test may spoil, the only thing in its folder's folder."""
    return Path(shutil.copytree(honest.path, tmp_path / "sent" / "run"))


def report_or_say(folder: Path) -> None:
    """Write a report, or raise what the command line makes a sentence of."""
    with contextlib.suppress(UserError, *UNREADABLE), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        write_report(RunFolder(folder), prometheus_url=None)


def spoil(folder: Path, change: Spoil) -> None:
    path = folder / MANIFEST
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def spoil_records(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / JSONL
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records[::7]:
        change(record)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


BLOCK = {
    "started_at": 1e300,
    "ended_at": -1.0,
    "users": 10**30,
    "measured_requests": 10**18,
    "rate": 1e308,
    "repeat": 10**12,
    "cell": "../<b>",
    "engine": "../../../outside",
    "record_id": "/etc/passwd",
}
WHOLE: dict[str, Spoil] = {
    "started_at": lambda m: m.update(started_at=1e300),
    "ended_at": lambda m: m.update(ended_at=-1e300),
    "alpha -1": lambda m: m.update(alpha=-1),
    "alpha NaN": lambda m: m.update(alpha=float("nan")),
    "run_id": lambda m: m.update(run_id="/../../../outside"),
    "run_id long": lambda m: m.update(run_id="a" * 5000),
    "engine": lambda m: m["engines"][0].update(name="../outside"),
    "engine esc": lambda m: m["engines"][0].update(name="one" + ESC),
    "100 engines": lambda m: m.update(engines=[{**m["engines"][0], "name": f"e{i}"} for i in range(100)]),
    "100,000 blocks": lambda m: m.update(blocks=m["blocks"] * 30_000),
    "sessions": lambda m: m.update(sessions=[{"started_at": -1e300, "ended_at": 1e300}]),
    **{
        f"block {key}": lambda m, key=key, value=value: m["blocks"][0].update({key: value})
        for key, value in BLOCK.items()
    },
}


@pytest.mark.parametrize("what", WHOLE)
def test_a_manifest_with_what_cannot_be_is_refused_with_the_place(copy, loadgen, what):
    spoil(copy, WHOLE[what])
    for command in (("report", "--brief"), ("export", "--format", "vllm")):
        done = loadgen(command[0], str(copy), *command[1:])
        assert done.returncode == 2
        assert f"{MANIFEST}: not a readable manifest: " in done.stderr
        assert len(done.stderr) < 1000
        assert "\x1b" not in done.stderr


ODD: dict[str, Spoil] = {
    "host": lambda m: m.update(host={"cpus": [], "memory_bytes": "x", "gpus": "y", "cpu": {}}),
    "launch": lambda m: [e.update(launch={"argv": 5, "environment": [], "serving": "x"}) for e in m["engines"]],
    "margin": lambda m: m["scenario"].update(margin=1e308),
    "repeats": lambda m: m["scenario"].update(repeats=10**9),
    "floor": lambda m: m.update(floor={"a": "b"}),
    "cells": lambda m: m["scenario"].update(
        prompt_tokens=list(range(1, 3001)), output_tokens=list(range(1, 3001)), load={"concurrency": [*range(1, 1001)]}
    ),
    "huge cell": lambda m: [b.update(cell="p999999999-o999999999-c999999999") for b in m["blocks"]],
}


@pytest.mark.parametrize("what", ODD)
def test_odd_facts_end_in_a_report_or_in_a_sentence(copy, what, undrawn):
    spoil(copy, ODD[what])
    report_or_say(copy)


RECORDS: dict[str, Spoil] = {
    "t 2^63": lambda r: r.update(t_send=2**63 - 1, t_done=2**63 - 1),
    "wall offset": lambda r: r.update(wall_offset_ns=2**63 - 1),
    "late by 290 years": lambda r: r.update(t_last=2**63 - 1, t_done=2**63 - 1),
    "negative": lambda r: r.update(t_first=-(2**62), t_last=-(2**62)),
    "tokens": lambda r: r.update(output_tokens=2**31 - 1),
    "NUL": lambda r: r.update(error="\0" * 500, error_detail="\0"),
}


@pytest.mark.parametrize("what", RECORDS)
def test_odd_records_end_in_a_report_or_in_a_sentence(copy, what, undrawn):
    spoil_records(copy, RECORDS[what])
    report_or_say(copy)


def test_what_nobody_thought_of_is_a_sentence_too(copy, loadgen):
    spoil_records(copy, RECORDS["t 2^63"])
    done = loadgen("export", str(copy), "--format", "vllm")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: the run cannot be read: its files hold what no run leaves (OverflowError")


def test_links_in_a_folder_are_neither_written_through_nor_read(copy, loadgen, tmp_path):
    victims = tmp_path / "victims"
    victims.mkdir()
    for name in ("report.html", "report.md", "summary.json"):
        (victims / name).write_text("mine")
        (copy / name).symlink_to(victims / name)
    for name in ("report_files", "export-vllm", "compare-base"):
        (copy / name).symlink_to(victims)
    for command in (("report", "--brief"), ("export", "--format", "vllm")):
        loadgen(command[0], str(copy), *command[1:])
    loadgen("compare", str(copy), str(copy), "--engine", "one")
    assert {path.name for path in victims.iterdir()} == {"report.html", "report.md", "summary.json"}
    assert {path.read_text() for path in victims.iterdir()} == {"mine"}


@pytest.mark.parametrize("name", [MANIFEST, JSONL])
@pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd", "fifo"])
def test_devices_pipes_and_links_are_not_read(copy, loadgen, name, target):
    (copy / name).unlink()
    os.mkfifo(copy / name) if target == "fifo" else (copy / name).symlink_to(target)
    done = loadgen("report", "--brief", str(copy))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")


def test_no_network_is_asked_unless_a_person_says_so(copy, loadgen):
    with serve({}) as web:
        spoil(copy, lambda m: m.update(prometheus_url=f"{web.url}/admin?x="))
        loadgen("report", "--brief", str(copy))
        loadgen("export", str(copy), "--format", "vllm")
        assert web.seen == []
        loadgen("report", "--brief", str(copy), "--prometheus", web.url)
        assert web.seen


def test_nothing_of_a_folder_moves_the_cursor(copy, loadgen):
    def change(manifest: dict[str, Any]) -> None:
        manifest["messages"] = [ESC]
        manifest["scenario"]["question"] = ESC
        for block in manifest["blocks"]:
            block["reason"] = ESC
        for engine in manifest["engines"]:
            engine.update(version=ESC, model=ESC)

    spoil(copy, change)
    spoil_records(copy, lambda r: r.update(error="e" + ESC, error_detail=ESC))
    for arguments in (
        ("report", str(copy), "--fail-if", "ttft.p95 > 1 ms"),
        ("compare", str(copy), str(copy), "--a", ESC),
        ("compare", str(copy), str(copy), "--engine", "one", "--accept", "model"),
        ("export", str(copy), "--format", "vllm"),
    ):
        done = loadgen(*arguments)
        said = done.stdout + done.stderr
        assert said
        assert not {"\x1b", "\x07", "\x9b"} & set(said)
