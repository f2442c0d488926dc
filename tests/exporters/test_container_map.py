"""The file that says which container is which engine."""

import json
import logging

import pytest

from exporters.containers import ContainerMap, read_container_map

A = "a1" * 32
LOG = logging.getLogger("exporters.test")


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"vllm": "a1a1a1a1a1a1"}', f'{{"{A}": 3}}', f'{{"{A}": ""}}', '{"a1a1": "vllm"}', f'{{"{A}0": "x"}}'],
)
def test_a_broken_one_is_refused(tmp_path, text):
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(ValueError):
        read_container_map(path)


def test_it_is_followed_and_what_is_wrong_is_said_once_a_cause(tmp_path, caplog):
    path = tmp_path / "map.json"
    containers = ContainerMap(path, LOG)
    steps = [(None, {}, 1), (None, {}, 1), ("{}", {}, 1), (json.dumps({A: "vllm"}), {A: "vllm"}, 1),
             ("{", {}, 2), ("{", {}, 2), (None, {}, 3), (json.dumps({A: "ksana"}), {A: "ksana"}, 3)]  # fmt: skip
    for text, engines, warnings in steps:
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(text)
        assert containers.engines() == engines
        assert len(caplog.records) == warnings
    assert {record.getMessage() for record in caplog.records} == {"container_map_unreadable"}
    assert all(record.fields["file"] == str(path) for record in caplog.records)
