"""Which cards a seat gets: two, four and eight of them, of several kinds, cut into parts, and named."""

import pytest

from exporters.nvml import Nvml
from loadgen.errors import UserError
from loadgen.hosts.cards import Card, CardsOf, Chosen, choose_cards
from stack.gpu import gpus_here
from tests.exporters.fake_nvml import FakeGpu, FakeNvml

SHAPE = {"num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944}


def machine(*names, cut=()):
    """The cards as NVML tells them."""
    gpus = [FakeGpu(number, nvmlDeviceGetMigMode=[int(number in cut), 0]) for number in range(len(names))]
    for gpu, name in zip(gpus, names, strict=True):
        gpu.name = name
    return gpus_here(Nvml(FakeNvml(*gpus)))


H200, H100 = "NVIDIA H200", "NVIDIA H100"


def choose(cards, asked, gpus="0", named=False, config=SHAPE, kind="vllm", usable=None):
    usable = tuple(str(card.index) for card in cards) if usable is None else usable
    seat = CardsOf("vllm", kind, tuple(gpus.split(",")), named, "BAKEOFF_VLLM_GPUS", usable)
    return choose_cards(seat, asked, cards, config)


def tp(size):
    return {"tensor_parallel_size": size}


@pytest.mark.parametrize(
    ("count", "asked", "first", "gpus", "spare"),
    [
        (2, {}, "0", "0", "1"),
        (2, tp(2), "0", "0,1", ""),
        (2, tp(2), "1", "1,0", ""),
        (4, tp(2), "0", "0,1", "2,3"),
        (4, tp(2), "2", "2,3", "0,1"),
        (4, {"data_parallel_size": 4}, "0", "0,1,2,3", ""),
        (8, {**tp(4), "data_parallel_size": 2}, "0", "0,1,2,3,4,5,6,7", ""),
        (8, tp(4), "GPU-6", "GPU-6,7,0,1", "2,3,4,5"),
    ],
)
def test_a_seat_gets_as_many_as_are_asked_for(count, asked, first, gpus, spare):
    chosen = choose(machine(*[H200] * count), asked, first)
    assert chosen == Chosen(tuple(gpus.split(",")), tuple(name for name in spare.split(",") if name))


def test_only_cards_of_one_kind_and_whole_ones_are_added():
    assert choose(machine(H200, H100, H200, H100), tp(2)).gpus == ("0", "2")
    assert choose(machine(H200, H100, H200, H100), tp(2), "1").gpus == ("1", "3")
    assert choose(machine(H200, H200, H200, cut=(1,)), tp(2)).gpus == ("0", "2")
    assert choose(machine(H200, H200, H200), tp(2), "2", usable=("2", "GPU-0")).gpus == ("2", "GPU-0")


@pytest.mark.parametrize(
    ("cards", "asked", "more", "message"),
    [
        (
            (H200, H200),
            tp(4),
            {},
            r"vllm: tensor_parallel_size 4 takes 4 cards, and it can have 2 of one kind \(of this machine's: 2 x "
            r"NVIDIA H200\); tensor_parallel_size 1, 2 would do, or name others with BAKEOFF_VLLM_GPUS\.",
        ),
        ((H200, H100), tp(2), {}, r"1 of one kind \(of this machine's: 1 x NVIDIA H200, 1 x NVIDIA H100\)"),
        ((H200,) * 4, tp(2), {"gpus": "3", "named": True}, r"takes 2 cards, and BAKEOFF_VLLM_GPUS names 1 \(3\)"),
        ((H200,) * 4, tp(2), {"usable": ("0",)}, r"it can have 1 of one kind .*; tensor_parallel_size 1 would do"),
        (
            (H200,) * 8,
            tp(3),
            {},
            r"tensor_parallel_size 3: vLLM cannot share .*; tensor_parallel_size 1, 2, 4 would do",
        ),
        (
            (H200, H200),
            {**tp(2), "data_parallel_size": 2},
            {},
            r"takes 4 cards, .*size 1 would do with data_parallel_size 2",
        ),
        ((H200, H200), {"data_parallel_size": 3}, {}, "data_parallel_size up to 2 would do"),
        (
            (H200,),
            tp(2),
            {"gpus": "MIG-a,MIG-b", "named": True},
            r"GPU MIG-a, MIG-b is cut into parts \(MIG\), which cannot",
        ),
        ((), tp(2), {}, r"it can have 1 of one kind \(of this machine's: not known\)"),
    ],
)
def test_what_cannot_be_is_one_message(cards, asked, more, message):
    with pytest.raises(UserError, match=message):
        choose(machine(*cards) if cards else [], asked, **more)


def test_a_card_that_is_cut_into_parts_takes_no_others_beside_it():
    with pytest.raises(UserError, match=r"and GPU 0 is cut into parts \(MIG\).*; on a part tensor_parallel_size 1"):
        choose(machine(H200, H200, cut=(0,)), tp(2), usable=("0", "1"))
    assert choose(machine(H200, H200, cut=(0,)), tp(1)).gpus == ("0",)


def test_cards_that_were_named_are_taken_as_they_are():
    assert choose(machine(*[H200] * 4), tp(2), "3,1,0", named=True) == Chosen(("3", "1"))
    mixed = choose(machine(H200, H100), tp(2), "0,1", named=True)
    assert mixed.gpus == ("0", "1") and "cards of several kinds (NVIDIA H100, NVIDIA H200)" in mixed.note
    # What is not counted takes all that it is given.
    assert choose(machine(H200, H200), {}, "0,1", kind="ksana") == Chosen(("0", "1"))
    assert choose(machine(H200, H200), tp(2), "0,1", kind="") == Chosen(("0", "1"))


def test_nvml_tells_which_cards_are_cut():
    assert machine(H200, H100, cut=(1,)) == [Card(0, "GPU-0", H200), Card(1, "GPU-1", H100, mig=True)]
    assert gpus_here(Nvml(FakeNvml(FakeGpu(3)))) == [Card(0, "GPU-3", H200)]
