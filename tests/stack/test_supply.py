"""The list of parts: every package of every lock file is in it, with its hashes."""

from __future__ import annotations

import json
import re
import tomllib

from loadgen.machine import ROOT
from stack.supply import lock_files, main, parts, sbom


def test_every_lock_file_of_the_repository_is_read():
    known = {path.relative_to(ROOT).as_posix() for path in lock_files(ROOT)}
    tracked = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.lock")
        if not {".venv", ".bakeoff", "dist"} & set(path.relative_to(ROOT).parts)
    }
    assert known == tracked
    assert "requirements.lock" in known


def test_the_parts_are_what_the_lock_files_pin():
    pinned = {
        (re.sub(r"[-_.]+", "-", name).lower(), version)
        for path in lock_files(ROOT)
        for name, version in re.findall(r"(?m)^([A-Za-z0-9._-]+)==([^ ;\\\n]+)", path.read_text())
    }
    assert {(part.name, part.version) for part in parts(ROOT)} == pinned
    assert all(part.hashes for part in parts(ROOT))


def test_the_list_is_cyclonedx_and_always_the_same():
    text = sbom(ROOT)
    assert text == sbom(ROOT)
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert document["metadata"]["component"]["version"] == project["version"]
    references = [part["bom-ref"] for part in document["components"]]
    assert len(set(references)) == len(references) > 100
    assert "pkg:pypi/locust@2.47.0" in references


def test_licences_are_a_row_each(capsys):
    assert main(["licences"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == len(parts(ROOT)) + 2
    assert any(row.startswith("| locust | 2.47.0 | MIT") for row in rows)


def test_wrong_usage(capsys):
    assert main(["bom"]) == 2
    assert "usage" in capsys.readouterr().err


def test_vllm_on_a_gpu_is_of_one_version_as_an_image_and_as_a_wheel():
    image = re.search(r"vllm/vllm-openai:v([0-9.]+)", (ROOT / "compose.yaml").read_text(encoding="utf-8"))
    lock = (ROOT / "stack/engines/vllm/requirements-gpu.lock").read_text(encoding="utf-8")
    assert image is not None and f"\nvllm=={image[1]} " in lock
