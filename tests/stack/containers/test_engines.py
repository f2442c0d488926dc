import json

import pytest

from loadgen.endpoints.seats import seats_json
from loadgen.errors import UserError
from stack.containers.engines import choose_engine, engine_services, only


def service(kind, port, model="m", api="completions"):
    return {"labels": {"bakeoff.engine": kind, "bakeoff.port": str(port), "bakeoff.model": model, "bakeoff.api": api}}


CPU = {"locust": {}, "vllm-cpu": service("vllm", 8101), "llamacpp": service("llamacpp", 8102)}
SIM = {"sim-vllm": service("vllm", 8111), "sim-ksana": service("ksana", 8112, api="chat")}


def test_engines_are_the_labelled_services():
    found = engine_services(CPU)
    assert [(each.name, each.kind, each.base_url) for each in found] == [
        ("llamacpp", "llamacpp", "http://llamacpp:8102"),
        ("vllm-cpu", "vllm", "http://vllm-cpu:8101"),
    ]


def test_seats_have_the_addresses_inside():
    assert json.loads(seats_json(engine_services({"sim-ksana": SIM["sim-ksana"]}))) == [
        {"name": "sim-ksana", "kind": "ksana", "base_url": "http://sim-ksana:8112", "model": "m", "api": "chat"}
    ]


@pytest.mark.parametrize(
    ("services", "asked", "chosen"),
    [
        (CPU, None, "llamacpp"),
        (CPU, "vllm-cpu", "vllm-cpu"),
        (CPU, "vllm", "vllm-cpu"),
        (SIM, None, "sim-vllm"),
        (SIM, "ksana", "sim-ksana"),
        (CPU, "none", None),
    ],
)
def test_the_engine_that_starts(services, asked, chosen):
    found = choose_engine(engine_services(services), asked)
    assert (found.name if found else None) == chosen


def test_an_engine_that_the_profile_lacks():
    with pytest.raises(UserError, match="unknown engine ksana: this profile has llamacpp, vllm-cpu"):
        choose_engine(engine_services(CPU), "ksana")
    with pytest.raises(UserError, match="unknown engine vllm"):  # which of the two?
        choose_engine(engine_services({**CPU, **SIM}), "vllm")


def test_a_choice_of_engines():
    engines = engine_services({**CPU, **SIM})
    assert [each.name for each in only(engines, " sim-vllm, llamacpp")] == ["llamacpp", "sim-vllm"]
    assert only(engines, "") == engines
    with pytest.raises(UserError, match="no engine vllm; it has llamacpp"):
        only(engines, "vllm")
