import json

import pytest

from stack.engines import stamps
from stack.engines.vllm.convert import with_bos
from stack.engines.vllm.serve import kv_cache_gib


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "hf"
    path.mkdir()
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "config.json").write_text("{}")
    stamp = {"form": "hf", "converter": 1, "files": stamps.stamp_files(list(path.iterdir()))}
    stamps.stamp_path(path).write_text(json.dumps(stamp))
    return path


def test_intact(folder):
    assert stamps.is_intact(folder, {"form": "hf", "converter": 1}, full=False)
    assert stamps.is_intact(folder, {"form": "hf", "converter": 1}, full=True)


def test_another_converter_makes_it_anew(folder):
    assert not stamps.is_intact(folder, {"form": "hf", "converter": 2}, full=False)


def test_a_changed_size_is_seen_cheaply_and_a_flipped_byte_by_hash(folder):
    (folder / "model.safetensors").write_bytes(b"Weights")
    assert stamps.is_intact(folder, {}, full=False)
    assert not stamps.is_intact(folder, {}, full=True)
    (folder / "model.safetensors").write_bytes(b"cut")
    assert not stamps.is_intact(folder, {}, full=False)
    (folder / "model.safetensors").unlink()
    assert not stamps.is_intact(folder, {}, full=False)


@pytest.mark.parametrize("stamp", ["", "[]", "{}", '{"files": {}}'])
def test_a_useless_stamp_vouches_for_nothing(folder, stamp):
    stamps.stamp_path(folder).write_text(stamp)
    assert not stamps.is_intact(folder, {}, full=False)


def test_the_tokenizer_puts_one_bos_first():
    """By the tokenizers library itself, over a tokenizer of three words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"<unk>": 0, "Hello": 1, "<bos>": 2, "world": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    assert words.encode("Hello world").ids == [1, 3]
    changed = Tokenizer.from_str(json.dumps(with_bos(json.loads(words.to_str()), 2)))
    assert changed.encode("Hello world").ids == [2, 1, 3]
    assert changed.encode("Hello world", add_special_tokens=False).ids == [1, 3]


def test_the_kv_cache_holds_every_sequence_at_full_length():
    for context, parallel in ((5120, 16), (4096, 16), (32768, 16), (256, 1)):
        needed = context * parallel * 18 * 2 * 256 * 2
        gib = kv_cache_gib(context, parallel)
        assert needed <= gib * 2**30 < needed + 2 * 2**30
