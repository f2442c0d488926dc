"""When an engine may begin on a GPU, and what is said of one that is not free."""

import os
import re
from types import SimpleNamespace

import psutil
import pynvml
import pytest

from exporters.nvml import Nvml
from loadgen.errors import UserError
from loadgen.hosts.cards import Card
from loadgen.hosts.placement import Place
from loadgen.machine import format_cpus, parse_cpus
from stack.processes import turn
from stack.processes.turn import Waiting
from tests.exporters.fake_nvml import FakeGpu, FakeNvml

GIB = 1 << 30


class Machine:
    """GPUs, and a clock on which memory is given back at a moment."""

    def __init__(self, *gpus, frees_at=None):
        self.api, self.now, self.frees_at = FakeNvml(*gpus), 0.0, frees_at
        self.waiting = Waiting(Nvml(self.api), 60, clock=lambda: self.now, pause=self.pause)

    def pause(self, seconds):
        self.now += seconds
        if self.frees_at is not None and self.now >= self.frees_at:
            for gpu in self.api.gpus:
                gpu.used, gpu.processes = 0, []

    def wait(self, *gpus, engine="vllm"):
        self.waiting.wait(engine, gpus)
        return self.now


def holder(number=0, used=70 * GIB, **more):
    gpu = FakeGpu(number)
    gpu.used, gpu.processes = used, more.get("processes", [(os.getpid(), used)])
    return gpu


def free(number=0):
    return holder(number, GIB // 2, processes=[])


def test_a_free_gpu_is_not_waited_for():
    assert Machine(free()).wait("0") == 0


def test_memory_that_is_given_back_late_is_waited_for(capsys):
    assert Machine(holder(), frees_at=7).wait("0") == 7
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2 and said[0].startswith("waiting: GPU 0 (NVIDIA H200) has 70.0 of 141.0 GiB")


def test_who_holds_memory_is_named():
    with pytest.raises(UserError) as error:
        Machine(holder(processes=[(os.getpid(), 60 * GIB), (999_999_999, 9 * GIB)])).wait("0")
    name = re.escape(psutil.Process().cmdline()[0][:10])
    assert re.search(
        rf"GPU 0 \(NVIDIA H200\) has 70.0 of 141.0 GiB of its memory in use, by process {os.getpid()} \({name}.*\) "
        r"with 60.0 GiB, process 999999999, which cannot be seen from here, with 9.0 GiB after 60 s of waiting. "
        r"End what holds it, or give vllm another GPU \(BAKEOFF_VLLM_GPUS\)",
        str(error.value),
    )
    with pytest.raises(UserError, match=r"by no process that the driver names after 60 s.*BAKEOFF_ENGINE_MY_ONE_GPUS"):
        Machine(holder(processes=[])).wait("0", engine="my-one")


def test_only_its_own_gpus_are_looked_at():
    two = Machine(holder(0), free(1))
    assert two.wait("1") == two.wait("GPU-1") == 0
    with pytest.raises(UserError, match="GPU 0"):
        two.wait("1", "0")


@pytest.mark.parametrize(
    ("gpu", "message"),
    [("3", r"BAKEOFF_VLLM_GPUS: there is no GPU 3; there are 0 \(GPU-0\)"), ("GPU-9", "there is no GPU GPU-9")],
)
def test_a_gpu_that_there_is_not_is_named(gpu, message):
    with pytest.raises(UserError, match=message):
        Machine(free()).wait(gpu)


def test_a_part_of_a_card_and_a_card_that_tells_no_memory_are_not_waited_for(capsys):
    assert Machine(holder()).wait("MIG-1") == 0
    assert "whether MIG-1 is free is not looked at" in capsys.readouterr().out
    silent = holder()
    silent.faults = dict.fromkeys(
        ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"), pynvml.NVML_ERROR_NOT_SUPPORTED
    )
    assert Machine(silent).wait("0") == 0


def test_a_driver_that_does_not_answer_is_told():
    machine = Machine(free())
    machine.api.open_fault = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
    with pytest.raises(UserError, match="the NVIDIA driver does not answer: driver_not_loaded"):
        machine.wait("0")


CARDS = tuple(Card(number, f"GPU-{number}0", "NVIDIA H200") for number in range(4))


@pytest.fixture
def taking(monkeypatch):
    """Takes the place of `vllm` with these options, and tells the variables, the facts and who was waited for."""
    waited = []

    def take(gpus="0", places=None, running=(), cpus="0", asked=None, named=False, model=""):
        host = SimpleNamespace(running=lambda: list(running))
        monkeypatch.setattr(turn, "read_places", lambda _: places or {})
        monkeypatch.setattr(turn, "known_gpus", lambda: CARDS)
        monkeypatch.setattr(turn.SupervisorHost, "of_checkout", lambda _: host)
        monkeypatch.setattr(turn, "pin", lambda engine, cpus, node=None: {"cpus": format_cpus(cpus), "node": node})
        monkeypatch.setattr(turn, "usable_gpus", lambda: tuple(str(card.index) for card in CARDS))
        monkeypatch.setattr(turn, "read_serving", lambda: asked or {})
        monkeypatch.setattr(turn.Waiting, "wait", lambda _, engine, gpus, spare: waited.append(tuple(gpus)) or gpus)
        told = {"kind": "vllm", "named": named, "set": [f"BAKEOFF_MODEL={model}", "BAKEOFF_PORT=1"]}
        options = SimpleNamespace(engine="vllm", cpus=parse_cpus(cpus), gpus=gpus, free_limit=60, **told)
        return *turn.take_place(options), waited

    return take


def test_an_engine_is_as_the_stack_is_set_up_where_no_race_places_it(taking):
    variables, facts, waited = taking("0", {"vllm-2": Place(("1",), "3")}, cpus="0-2")
    assert variables == {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert facts == {"cpus": "0-2", "node": None, "gpu_uuids": ["GPU-00"]} and waited == [("0",)]
    assert taking("", cpus="1")[:2] == ({}, {"cpus": "1", "node": None})


def test_a_place_goes_before_and_cards_are_told_by_index(taking):
    place = {"vllm": Place(("GPU-30", "1"), "4-5", 1)}
    variables, facts, waited = taking("0", place, asked={"tensor_parallel_size": 2})
    assert variables["CUDA_VISIBLE_DEVICES"] == "3,1" and waited == [("GPU-30", "1")]
    assert facts == {"cpus": "4-5", "node": 1, "gpu_uuids": ["GPU-30", "GPU-10"]}
    assert taking("MIG-7")[0]["CUDA_VISIBLE_DEVICES"] == "MIG-7"
    with pytest.raises(UserError, match="vllm: '5-4' is no list of cores such as 0-2,5"):
        taking(places={"vllm": Place(cpus="5-4")})


@pytest.mark.parametrize(
    ("places", "waits"),
    [
        ({}, False),
        ({"vllm": Place(("0",)), "vllm-2": Place(("1",))}, True),
        ({"vllm": Place(("0",)), "vllm-2": Place(("GPU-0",))}, False),
        ({"vllm": Place(("0",))}, False),
    ],
)
def test_beside_another_engine_memory_is_waited_for_on_cards_of_its_own_only(taking, places, waits, capsys):
    assert bool(taking("0", places, running=["vllm", "vllm-2"])[2]) is waits
    assert ("vllm-2 is kept up beside it" in capsys.readouterr().out) is not waits


def test_sizes_that_are_asked_for_bring_as_many_cards(taking, tmp_path):
    for asked, visible in (
        ({"tensor_parallel_size": 2}, "1,2"),
        ({"data_parallel_size": 2, "tensor_parallel_size": 2}, "1,2,3,0"),
        ({"max_batch_size": 3}, "1"),
    ):
        assert taking("1", asked=asked)[0]["CUDA_VISIBLE_DEVICES"] == visible
    named = {"asked": {"tensor_parallel_size": 2}, "named": True}
    assert taking("3,0,1", **named)[0]["CUDA_VISIBLE_DEVICES"] == "3,0"
    with pytest.raises(UserError, match="BAKEOFF_VLLM_GPUS names 1"):
        taking("3", **named)
    with pytest.raises(UserError, match="BAKEOFF_VLLM_GPUS names 1"):  # a race named it
        taking("0", {"vllm": Place(("1",))}, asked=named["asked"])
    (tmp_path / "config.json").write_text('{"num_attention_heads": 3}')
    with pytest.raises(UserError, match=r"cannot share this model out so .*; tensor_parallel_size 1, 3 would do"):
        taking("0", asked=named["asked"], model=tmp_path)


def test_an_equal_card_stands_in_for_one_that_stays_busy(capsys):
    busy = Machine(free(0), holder(1), holder(2), free(3))
    assert busy.waiting.wait("vllm", ["0", "1"], ["2", "3"]) == ["0", "3"] and busy.now == 15
    assert re.search(r"note: GPU 1 .* in use, by process .*, so GPU 3 is taken in its place", capsys.readouterr().out)
    assert Machine(free(0), holder(1), free(2), frees_at=5).waiting.wait("vllm", ["0", "1"], ["2"]) == ["0", "1"]


def test_the_first_card_and_cards_that_were_named_are_not_replaced():
    with pytest.raises(UserError, match=r"GPU 0 .* or ask for fewer: 1 of its 2 are free"):
        Machine(holder(0), free(1), free(2)).waiting.wait("vllm", ["0", "1"], ["2"])
    with pytest.raises(UserError, match=r"GPU 1 .*BAKEOFF_VLLM_GPUS\), or ask for fewer: 1 of its 2 are free"):
        Machine(free(0), holder(1), free(2)).wait("0", "1")
