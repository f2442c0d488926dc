"""The model's tokenizer, of every kind that folders hold."""

import base64
import json
import sys

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from loadgen.endpoints.tokenizer import ModelTokenizer, find_tokenizer, lacks_chat_template
from loadgen.errors import UserError

TEXT = "a b c d " * 50


def word_level(folder, change):
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2, "d": 3, "[PAD]": 4}, unk_token="[PAD]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    change(made)
    made.save(str(folder / "tokenizer.json"))
    return ModelTokenizer(find_tokenizer(str(folder)))


@pytest.mark.parametrize(
    "change",
    [
        lambda made: None,
        lambda made: made.enable_truncation(64),
        lambda made: made.enable_truncation(8, stride=2, strategy="only_first"),
        lambda made: made.enable_padding(length=512, pad_id=4),
        lambda made: made.enable_padding(pad_to_multiple_of=64, pad_id=4),
        lambda made: (made.enable_truncation(16), made.enable_padding(length=16, pad_id=4)),
    ],
    ids=["plain", "truncation", "stride", "fixed padding", "padding to a multiple", "both"],
)
def test_nothing_is_cut_off_and_nothing_is_filled_up(tmp_path, change):
    tokenizer = word_level(tmp_path, change)
    assert tokenizer.count(TEXT) == len(tokenizer.encode(TEXT)) == 200
    assert tokenizer.count("") == 0


def test_a_character_without_a_token_of_its_own_counts_as_its_bytes(tmp_path):
    vocabulary = {"<unk>": 0, "a": 1, **{f"<0x{byte:02X}>": 2 + byte for byte in range(256)}}
    made = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    made.decoder = decoders.ByteFallback()
    made.save(str(tmp_path / "tokenizer.json"))
    assert [ModelTokenizer(tmp_path / "tokenizer.json").count(text) for text in ("aa", "a€", "🤖")] == [2, 4, 4]


def tiktoken_file(path):
    ranks = [bytes([byte]) for byte in range(256)] + [b"to", b"tok", b" tok", b"12", b"123"]
    path.write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks)))
    return ModelTokenizer(find_tokenizer(str(path.parent)))


@pytest.mark.parametrize(
    ("name", "digits"), [("qwen.tiktoken", 3), ("tokenizer.model", 1), ("tiktoken.model", 1), ("o200k.tiktoken", 1)]
)
def test_a_tiktoken_vocabulary(tmp_path, name, digits):
    tokenizer = tiktoken_file(tmp_path / name)
    assert tokenizer.encode("tok tok") == [257, 258]
    assert tokenizer.count("€") == 3, "bytes stand in for what has no token"
    assert tokenizer.count("123") == digits, "Qwen takes digits one by one"
    assert tokenizer.count("<|endoftext|>") > 1, "text that looks like a special token is text"


@pytest.mark.parametrize("bos", [True, False, None])
@pytest.mark.parametrize("name", ["tokenizer.model", "spiece.model"])
def test_a_sentencepiece_model(tmp_path, name, bos):
    sentencepiece = pytest.importorskip("sentencepiece")
    with (tmp_path / name).open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["hello world", "hello there", "world of words"] * 9),
            model_writer=file,
            vocab_size=280,
            model_type="bpe",
            byte_fallback=True,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    if bos is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": bos}))
    tokenizer = ModelTokenizer(find_tokenizer(str(tmp_path)))
    assert len(tokenizer.encode("hello")) == tokenizer.count("hello") + bool(bos)
    assert tokenizer.count("hello🤖") == tokenizer.count("hello") + 4


@pytest.mark.parametrize("package", ["tiktoken", "sentencepiece"])
def test_a_package_that_is_missing_is_told_with_the_command(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n" if package == "sentencepiece" else b"YQ== 0\n")
    with pytest.raises(UserError, match=rf"{package} file takes a package .* pip install 'bakeoff\[tokenizers\]'"):
        ModelTokenizer(tmp_path / "tokenizer.model")


@pytest.mark.parametrize(
    ("files", "lacking"),
    [
        ({"tokenizer_config.json": "{}"}, True),
        ({"tokenizer_config.json": '{"chat_template": null}'}, True),
        ({"tokenizer_config.json": "no JSON"}, True),
        ({"tokenizer_config.json": '{"chat_template": "{{ messages }}"}'}, False),
        ({"tokenizer_config.json": "{}", "chat_template.jinja": "{{ messages }}"}, False),
        ({}, False),
    ],
    ids=["none", "null", "broken", "in the settings", "a file of its own", "no model's folder"],
)
def test_whether_a_folder_has_a_chat_template(tmp_path, files, lacking):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert lacks_chat_template(tmp_path / "tokenizer.json") is lacking
