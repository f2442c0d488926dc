"""The manifest: what is written survives crashes, full disks and later versions."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys

import pytest

from loadgen.errors import UserError
from loadgen.runs import manifest as m
from loadgen.runs.manifest import BlockFacts, EngineFacts, Manifest, ParityFact, load_manifest, save_manifest


def a_manifest(**fields) -> Manifest:
    block = BlockFacts(
        id="a.c.r1", record_id="a.c.r1.a2", engine="a", cell="c", repeat=1, attempt=2, users=2, warmup_requests=1,
        measured_requests=None, started_at=2.5,
    )  # fmt: skip
    engine = EngineFacts(
        name="a", kind="vllm", api="chat", base_url="http://127.0.0.1:1", model="g", prompts={"k": [1]}
    )
    parity = ParityFact(check="tokens", equal=False, detail="6 and 5", values={"a": "6"})
    given = {"run_id": "r", "started_at": 1.25, "engines": [engine], "blocks": [block], "parity": [parity]}
    return Manifest(**{**given, "messages": ["é ☃"], **fields})


def test_round_trip(tmp_path):
    path = tmp_path / "manifest.json"
    save_manifest(a_manifest(), path)
    assert load_manifest(path) == a_manifest()
    assert json.loads(path.read_text())["blocks"][0]["record_id"] == "a.c.r1.a2"
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"]


def test_what_utf_8_cannot_hold_is_replaced(tmp_path):
    path = tmp_path / "manifest.json"
    engine = a_manifest().engines[0].model_copy(update={"launch": {"k": ["é\udfff"]}})
    save_manifest(a_manifest(engines=[engine], messages=["é ☃ \ud800"]), path)
    found = load_manifest(path)
    assert (found.messages, found.engines[0].launch) == (["é ☃ ?"], {"k": ["é?"]})


def test_blocks_are_found_by_record_id():
    assert a_manifest().block("a.c.r1.a2").attempt == 2
    assert a_manifest().block("a.c.r1") is None


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_failing_disk_leaves_the_old_manifest_and_says_why(tmp_path, monkeypatch, where, number):
    path = tmp_path / "manifest.json"
    save_manifest(a_manifest(run_id="old"), path)

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    elif where == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        real = os.fdopen

        def open_and_fail(*arguments, **options):
            file = real(*arguments, **options)
            file.write = fail
            return file

        monkeypatch.setattr(os, "fdopen", open_and_fail)
    with pytest.raises(UserError) as caught:
        save_manifest(a_manifest(run_id="new"), path)
    monkeypatch.undo()
    message = str(caught.value)
    assert str(path) in message and os.strerror(number) in message
    assert ("Free some space" in message) == (number == errno.ENOSPC)
    assert load_manifest(path).run_id == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"], "nothing half-written stays"


def test_kill_9_at_any_moment_leaves_a_whole_manifest(tmp_path):
    """A child saves larger and larger manifests without end and is killed; whatever is there is whole."""
    path = tmp_path / "manifest.json"
    program = (
        "import sys, itertools; from pathlib import Path; from loadgen.runs.manifest import Manifest, save_manifest\n"
        "for i in itertools.count(): save_manifest(Manifest(run_id=str(i), started_at=1,"
        " messages=['x' * 100] * (i % 500)), Path(sys.argv[1])); print(i, flush=True)\n"
    )
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(20):
            last = int(child.stdout.readline())
        child.kill()
        rest = child.stdout.read().split()
        child.wait()
        child.stdout.close()
        last = int(rest[-1]) if rest else last
        found = load_manifest(path)
        assert int(found.run_id) >= last
        assert len(found.messages) == int(found.run_id) % 500


LAUGHS = '{"code": "' + "{a}" * 10 + '", "values": {"a": '


@pytest.mark.parametrize(
    ("text", "said"),
    [
        *(
            (f'{{"run_id": "r", "started_at": 1, "messages": [{LAUGHS * deep}"ha"{"}}" * deep}]}}', said)
            for deep, said in [(9, "messages.0: is a message that fills without end"), (500, "recursion limit")]
        ),
        ("", "EOF"),
        ('{"run_id": "r"', "EOF"),
        ("[]", "object"),
        ('{"run_id": "r"}', "started_at: this key is required"),
        ('{"run_id": "r", "started_at": "soon"}', "started_at: must be a number"),
        ('{"run_id": "r", "started_at": 1, "blocks": [{}]}', "blocks.0.id: this key is required"),
        (b"\xff\xff", "not a readable manifest"),
        ('{"run_id": "r", "started_at": 1, "schema_version": 99}', "a later Bakeoff (schema 99"),
    ],
)
def test_a_broken_manifest_is_explained_in_one_line(tmp_path, text, said):
    path = tmp_path / "manifest.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        load_manifest(path)
    assert str(path) in str(caught.value) and said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_no_manifest(tmp_path):
    with pytest.raises(UserError, match="is not a run folder"):
        load_manifest(tmp_path / "manifest.json")
    with pytest.raises(UserError, match="not a readable manifest"):
        load_manifest(tmp_path)


def test_fields_of_a_later_minor_version_are_ignored(tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(a_manifest().model_dump_json()), "new": 1}))
    assert load_manifest(path) == a_manifest()


def test_run_ids_sort_by_time():
    assert m.new_run_id("smoke", 0.0) == "19700101-000000-smoke"
    moments = [0, 59.9, 60, 3600, 86_400, 951_782_400, 4_102_444_800]
    ids = [m.new_run_id("x", moment) for moment in moments]
    assert ids == sorted(ids)
    assert re.fullmatch(r"\d{8}-\d{6}-smoke", m.new_run_id("smoke"))


@pytest.mark.parametrize(
    ("gpus", "known"),
    [(["H200", {"name": "H100"}, 7], [{"name": "H100"}]), ("H200", []), (3, []), (None, []), ([], [])],
)
def test_cards_that_are_no_cards_are_none(gpus, known):
    assert Manifest(run_id="r", started_at=0, host={"gpus": gpus, "cpu": "x"}).host == {"gpus": known, "cpu": "x"}
