"""A race is refused before any engine starts where the stack's cards or the model do not allow its sizes."""

import json
from types import SimpleNamespace

import pytest

from loadgen.bench.card_check import check_cards
from loadgen.endpoints.seats import Seat
from loadgen.errors import UserError
from loadgen.hosts.cards import Card, CardsOf
from loadgen.scenario.model import Scenario

SHAPE = {"num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944}
VARIANT = {"name": "pair", "engine": "vllm", "serving": {"tensor_parallel_size": 2}}


@pytest.fixture
def check(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))

    def checked(*cards, named=(), **scenario):
        gpus = [Card(number, f"GPU-{number}", name) for number, name in enumerate(cards)]
        usable = tuple(str(card.index) for card in gpus)
        seat = CardsOf("vllm", "vllm", named or ("0",), bool(named), "BAKEOFF_VLLM_GPUS", usable)
        stack = SimpleNamespace(cards={"vllm": seat}, gpus=gpus, model_dirs={"vllm": str(tmp_path)})
        given = {
            **{"name": "tiny", "question": "?", "prompt_tokens": [16], "output_tokens": [8], "requests": 3, "seed": 1},
            **{"load": {"concurrency": [1]}, "repeats": 2, **scenario},
        }
        seats = [
            Seat(name="pair", base_url="http://x", variant_of="vllm"),
            Seat(name="vllm", base_url="http://x"),
            Seat(name="own", base_url="http://y"),
        ]
        return check_cards(Scenario.model_validate(given), stack, seats)

    return checked


def test_what_the_cards_allow_is_raced(check):
    assert check("H200") == []
    assert check("H200", "H200", engines=[VARIANT, "vllm", "own"]) == []
    assert check("H200", "H200", serving={"data_parallel_size": 2}) == []
    (note,) = check("H200", "H100", named=("0", "1"), serving={"tensor_parallel_size": 2})
    assert "several kinds (H100, H200)" in note


@pytest.mark.parametrize(
    ("cards", "scenario", "message"),
    [
        (1, {"engines": [VARIANT, "vllm", "own"]}, "takes 2 cards, and it can have 1 of one kind"),
        (2, {"serving": {"data_parallel_size": 4}}, "data_parallel_size up to 2 would do"),
        (8, {"serving": {"tensor_parallel_size": 8}}, "tensor_parallel_size 1, 2, 4 would do"),
    ],
)
def test_what_they_do_not_allow_is_one_message(check, cards, scenario, message):
    with pytest.raises(UserError, match=message):
        check(*["H200"] * cards, **scenario)
