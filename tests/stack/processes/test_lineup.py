"""Second seats, and which card each seat of the stack has."""

import pytest

from loadgen.hosts.cards import Card
from stack.processes import lineup as module
from stack.processes.lineup import lineup
from tests.loadgen.test_settings import settings_of

HERE = tuple(Card(index, f"GPU-{index}", "NVIDIA H200") for index in range(4))


@pytest.fixture
def seats(tmp_path, monkeypatch):
    def found(profile="gpu", cards=2, **environ):
        here = HERE[:cards]
        monkeypatch.setattr(module, "known_gpus", lambda: here)
        given = tuple(environ.pop("CUDA_VISIBLE_DEVICES", ",".join(str(gpu.index) for gpu in here)).split(","))
        monkeypatch.setattr(module, "usable_gpus", lambda: given)
        monkeypatch.setattr(module, "engine_gpus", lambda asked: asked or given[0] or "0")
        settings = settings_of(tmp_path, environ).model_copy(update={"profile": profile})
        return lineup(settings)

    return found


def cards_of(engines):
    return {engine.name: engine.gpus for engine in engines}


def test_a_second_seat_has_the_next_card_and_a_port_of_its_own(seats):
    found = seats()
    assert cards_of(found) == {"vllm": "0", "vllm-2": "1"}
    vllm, twin = found
    assert (twin.kind, twin.program, twin.twin_of, vllm.twin_of) == ("vllm", "vllm", "vllm", None)
    assert (twin.port, twin.variable) == (8121, "BAKEOFF_VLLM_2_PORT")
    assert cards_of(seats(BAKEOFF_KSANA_HOME="ksana")) == {"vllm": "0", "ksana": "0", "vllm-2": "1", "ksana-2": "1"}


def test_on_one_card_there_is_none(seats):
    assert cards_of(seats(cards=1)) == {"vllm": "0"}
    assert cards_of(seats(cards=4, CUDA_VISIBLE_DEVICES="3")) == {"vllm": "3"}


@pytest.mark.parametrize(
    ("environ", "twin"),
    [
        ({"BAKEOFF_VLLM_GPUS": "1"}, "0"),
        ({"BAKEOFF_VLLM_GPUS": "GPU-0"}, "1"),
        ({"BAKEOFF_VLLM_GPUS": "0,1"}, "2"),
        ({"BAKEOFF_VLLM_2_GPUS": "3"}, "3"),
        ({"CUDA_VISIBLE_DEVICES": "2,GPU-0"}, "GPU-0"),
    ],
)
def test_its_card_is_one_that_the_first_seat_has_not_or_as_named(seats, environ, twin):
    assert cards_of(seats(cards=4, **environ))["vllm-2"] == twin


def test_it_goes_with_its_engine(seats):
    ksana = {"BAKEOFF_KSANA_HOME": "ksana"}
    assert list(cards_of(seats(BAKEOFF_ENGINES="ksana", **ksana))) == ["ksana", "ksana-2"]
    assert list(cards_of(seats(BAKEOFF_ENGINES="ksana,vllm-2", **ksana))) == ["ksana", "vllm-2", "ksana-2"]
    own = {"COMMAND": "serve", "KIND": "vllm", "PORT": "8200"}
    found = seats(**{f"BAKEOFF_ENGINE_VLLM_{part}": value for part, value in own.items()})
    assert [(engine.name, engine.port) for engine in found] == [("vllm", 8200)]


def test_on_a_cpu_it_is_there_where_it_is_named(seats):
    assert not any(engine.twin_of for engine in seats("cpu"))
    found = seats("cpu", BAKEOFF_ENGINES="llamacpp,llamacpp-2")
    assert cards_of(found) == {"llamacpp": "", "llamacpp-2": ""}
    assert found[1].port == 8122 and found[1].program == "llamacpp"
