import json

import pytest

from loadgen.errors import UserError
from loadgen.hosts.placement import Place, declare_places, placement_file, read_places, write_places

PLACES = {"vllm": Place(("0",), "0-15", 0), "vllm-2": Place(gpus=("GPU-1", "2"))}


class Host:
    def __init__(self, *running):
        self.up = list(running)

    def running(self):
        return list(self.up)

    def stop(self, name):
        self.up.remove(name)


def test_what_is_written_is_read_and_every_key_is_optional(tmp_path):
    assert read_places(tmp_path) == {}
    write_places(tmp_path, PLACES)
    assert json.loads(placement_file(tmp_path).read_text()) == {
        "vllm": {"gpus": ["0"], "cpus": "0-15", "memory_node": 0},
        "vllm-2": {"gpus": ["GPU-1", "2"]},
    }
    assert read_places(tmp_path) == PLACES
    write_places(tmp_path, {})
    assert read_places(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "placement.json: "),
        ('{"vllm": {"gpu": ["0"]}}', r"placement.json: vllm.gpu: "),
        ('{"vllm": {"memory_node": "x"}}', r"placement.json: vllm.memory_node: "),
    ],
)
def test_a_malformed_file_is_one_message(tmp_path, text, message):
    placement_file(tmp_path).parent.mkdir(parents=True)
    placement_file(tmp_path).write_text(text)
    with pytest.raises(UserError, match=message):
        read_places(tmp_path)
    declare_places(tmp_path, {}, Host())
    assert read_places(tmp_path) == {}


def test_an_engine_that_runs_elsewhere_is_stopped_and_no_other(tmp_path):
    host = Host("vllm", "llamacpp")
    declare_places(tmp_path, {}, host)
    assert host.up == ["vllm", "llamacpp"] and not placement_file(tmp_path).exists()
    declare_places(tmp_path, PLACES, host)
    assert host.up == ["llamacpp"]
    host.up = ["vllm", "vllm-2"]
    declare_places(tmp_path, PLACES, host)
    assert host.up == ["vllm", "vllm-2"]
    declare_places(tmp_path, {"vllm": PLACES["vllm"]}, host)
    assert host.up == ["vllm"]
