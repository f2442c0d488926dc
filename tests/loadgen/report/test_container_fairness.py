"""What the fairness page makes of engines that ran in containers."""

from __future__ import annotations

import copy
from pathlib import Path

from loadgen.hosts.container_facts import container_facts
from loadgen.report.fairness import FairnessRow, fairness_rows
from loadgen.runs.folder import RunData
from loadgen.runs.manifest import EngineFacts, Manifest
from tests.loadgen.hosts.fake_docker import IMAGE, attributes


def rows(**host: object) -> dict[str, FairnessRow]:
    """The page's rows by name, for two containers alike but for `host`, which is set in the second's host part."""
    first = attributes("vllm")
    second = copy.deepcopy(first)
    second["HostConfig"] |= host
    engines = [
        EngineFacts(
            name=name, kind=name, api="chat", base_url="http://x", model="m", launch=container_facts(told, IMAGE)
        )
        for name, told in (("vllm", first), ("ksana", second))
    ]
    run = RunData(Path("nowhere"), Manifest(run_id="r", started_at=1.0, engines=engines), [], [])
    return {row.check: row for row in fairness_rows(run, ["vllm", "ksana"])}


def test_equal_limits():
    found = rows()
    assert found["launch: limits.memory_bytes"].equal is True
    assert found["launch: limits.memory_bytes"].values == {"vllm": "8.00 GiB", "ksana": "8.00 GiB"}
    assert found["launch: limits.cpus"].values["vllm"] == "1.5"
    assert not [row for row in found.values() if row.equal is False and row.check.startswith("launch: ")]


def test_other_limits_and_gpus_are_named():
    found = rows(Memory=0, DeviceRequests=[{"Driver": "nvidia", "DeviceIDs": ["0"]}])
    unequal = {check: row.values for check, row in found.items() if row.equal is False and check.startswith("launch: ")}
    assert unequal == {
        "launch: limits.memory_bytes": {"vllm": "8.00 GiB", "ksana": "–"},
        "launch: gpus.device_ids": {"vllm": "1", "ksana": "0"},
    }


def test_images_are_shown_and_not_judged():
    found = rows()
    assert found["launch: image"].equal is None
    assert "sha256:" in found["launch: image"].values["vllm"]
    assert found["launch: container"].equal is None
    assert "hunter2" not in found["launch: container"].values["vllm"]


def test_the_list_of_models_of_two_servers_never_differs_for_its_own_sake():
    """Each server says when it made it; name and context length have rows of their own."""
    run = RunData(
        Path("nowhere"),
        Manifest(
            run_id="r",
            started_at=1.0,
            engines=[
                EngineFacts(
                    name=name,
                    kind="openai",
                    api="chat",
                    base_url="http://x",
                    model="m",
                    launch={"host": "external", "models": {"data": [{"id": "m", "created": created}]}},
                )
                for name, created in (("a", 1), ("b", 2))
            ],
        ),
        [],
        [],
    )
    rows = fairness_rows(run, ["a", "b"])
    assert not [row for row in rows if "models" in row.check]
    assert next(row for row in rows if row.check == "model: name").equal is True
