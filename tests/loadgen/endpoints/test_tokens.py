"""How an endpoint's tokens are counted: by its own route, by a tokenizer, by probes."""

from __future__ import annotations

import hashlib
import json
import random
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from loadgen.endpoints import tokens
from loadgen.endpoints.endpoint import Endpoint, inspect_endpoint
from loadgen.endpoints.prompts import MIN_PIECES, PromptFactory
from loadgen.endpoints.tokens import MAX_COUNTS, count_tokens, make_recipe, one_token_words, words
from loadgen.errors import UserError
from tests.fault_server import FaultServer
from tests.fault_streams import CHAT_TEMPLATE_TOKENS
from tests.loadgen.distributed.web import serve


@pytest.fixture(scope="module")
def server():
    with FaultServer() as running:
        yield running


def endpoint(url: str, kind="openai", api="chat", **more) -> Endpoint:
    return Endpoint("e", kind, url, "fault-model", api, **more)


def test_words_are_many_distinct_and_plain():
    assert len(words()) >= 700
    assert len(set(words())) == len(words())
    assert all(word.isascii() and word.isalpha() and word.islower() for word in words())


def counter(bad: dict[str, int], overhead: int, calls: list[str]):
    def count(text: str) -> int:
        calls.append(text)
        return overhead + sum(bad.get(word, 1) for word in text.split())

    return count


@settings(deadline=None)
@given(st.integers(0, 2**32), st.floats(0, 0.12), st.integers(0, 30))
def test_of_known_words_no_bad_one_is_ever_found(seed, share, overhead):
    rng = random.Random(seed)
    bad = {word: rng.randint(2, 4) for word in words() if rng.random() < share}
    calls: list[str] = []
    try:
        found = one_token_words(words(), counter(bad, overhead, calls))
    except UserError:
        found = []
        assert share > 0.03
    assert not bad.keys() & set(found)
    assert len(found) == len(set(found)) and set(found) <= set(words())
    assert len(calls) <= MAX_COUNTS + 24
    if not bad:
        assert found == list(words()) and len(calls) <= 3


def test_a_few_bad_words_cost_few_good_ones():
    bad = {words()[3]: 2, words()[400]: 3}
    found = one_token_words(words(), counter(bad, 5, []))
    assert len(found) >= len(words()) - 32


def test_where_every_word_is_long_none_is_found():
    with pytest.raises(UserError, match=r"Only 0 words of one token each .*--tokenizer"):
        one_token_words(words(), lambda text: 3 + 2 * len(text.split()))


def lengths_are_right(recipe, server_url: str, kind: str, api: str) -> None:
    """The server itself counts the prompts that the recipe makes, as a completion or a chat would."""
    asked = endpoint(server_url, kind, api)
    for wanted in (recipe.overhead + 1, 17, 64, 300):
        factory = PromptFactory(recipe, prompt_tokens=wanted, seed="s")
        for number in (0, 1, 77):
            prompt = json.loads(factory.prompt(number))
            if recipe.mode == "text":
                assert count_tokens(asked, prompt) == wanted
            else:
                assert len(prompt) == wanted


def test_an_engine_with_a_tokenize_route_gets_token_ids(server):
    recipe = make_recipe(endpoint(server.url, "vllm", "completions"))
    assert recipe.mode == "ids"
    assert recipe.head_ids == (2,)
    assert recipe.source == "the engine's /tokenize"
    assert len(recipe.pieces) == len(set(recipe.pieces)) >= 700
    assert not set(map(str, recipe.head_ids)) & set(recipe.pieces)
    lengths_are_right(recipe, server.url, "vllm", "completions")


def test_chat_gets_words_and_the_overhead_of_its_template(server):
    recipe = make_recipe(endpoint(server.url, "vllm", "chat"))
    assert (recipe.mode, recipe.overhead) == ("text", CHAT_TEMPLATE_TOKENS + 1)
    lengths_are_right(recipe, server.url, "vllm", "chat")


@pytest.mark.parametrize(("api", "overhead"), [("chat", CHAT_TEMPLATE_TOKENS + 1), ("completions", 1)])
def test_an_endpoint_without_anything_is_probed(server, api, overhead):
    before = len(server.served)
    recipe = make_recipe(endpoint(server.url, api=api))
    assert (recipe.mode, recipe.overhead, recipe.source) == ("text", overhead, "usage of probe requests")
    assert recipe.pieces == words()[: tokens.PROBE_WORDS]
    assert len(server.served) - before <= 8
    lengths_are_right(recipe, server.url, "openai", api)


def test_an_engine_that_lacks_its_tokenize_route_is_probed():
    with serve({"/v1/completions": lambda body: usage_of(1 + len(body["prompt"].split()))}) as web:
        recipe = make_recipe(endpoint(web.url, "vllm", "completions"))
    assert (recipe.mode, recipe.overhead, recipe.source) == ("text", 1, "usage of probe requests")


def usage_of(count: object) -> tuple[int, object]:
    return 200, {"choices": [], "usage": {"prompt_tokens": count, "completion_tokens": 1}}


@pytest.fixture
def tokenizer(tmp_path):
    """Makes a word-level tokenizer, with special tokens, and with words that it cuts in two; gives its file."""

    def make(bos=True, eos=False, split: frozenset[str] = frozenset()) -> str:
        vocabulary = {word: i for i, word in enumerate(["<bos>", "<eos>", "<unk>", *words()])}
        made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        steps = [pre_tokenizers.WhitespaceSplit()]
        # Cut into the first letter and the rest, both unknown.
        steps += [pre_tokenizers.Split(word[1:], "isolated") for word in sorted(split)]
        made.pre_tokenizer = pre_tokenizers.Sequence(steps)
        template = ("<bos> " if bos else "") + "$A" + (" <eos>" if eos else "")
        made.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<bos>", 0), ("<eos>", 1)]
        )
        path = tmp_path / "tokenizer.json"
        made.save(str(path))
        return str(path)

    return make


@pytest.mark.parametrize(("bos", "eos"), [(True, False), (False, False), (True, True), (False, True)])
def test_ids_from_a_tokenizer_file(server, tokenizer, bos, eos):
    file = tokenizer(bos, eos)
    recipe = make_recipe(endpoint(server.url, "vllm", "completions", tokenizer=file))
    assert recipe.head_ids == ((0,) if bos else ())
    assert set(recipe.pieces).isdisjoint({"0", "1"}), "a special token is no piece"
    assert len(recipe.pieces) == len(words())
    assert recipe.source == "the given tokenizer" and recipe.facts()["tokenizer"] == file
    assert recipe.facts()["tokenizer_sha256"] == hashlib.sha256(Path(file).read_bytes()).hexdigest()
    lengths_are_right(recipe, server.url, "vllm", "completions")


def test_words_from_a_tokenizer_file_confirmed_by_usage(server, tokenizer):
    recipe = make_recipe(endpoint(server.url, api="chat", tokenizer=tokenizer()))
    assert (recipe.mode, recipe.overhead) == ("text", CHAT_TEMPLATE_TOKENS + 1)
    lengths_are_right(recipe, server.url, "openai", "chat")


def test_words_that_a_tokenizer_cuts_are_left_out(server, tokenizer):
    cut = frozenset(random.Random(7).sample(words(), 5))
    encode = Tokenizer.from_file(tokenizer(split=cut)).encode
    assert all(len(encode(word).ids) == 3 for word in cut)
    recipe = make_recipe(endpoint(server.url, api="chat", tokenizer=tokenizer(split=cut)))
    assert not cut & set(recipe.pieces)
    assert all(len(encode(word).ids) == 2 for word in recipe.pieces)


def test_without_usage_a_completion_is_counted_by_the_tokenizer_alone(tokenizer):
    with serve({"/v1/completions": (200, {"choices": []})}) as web:
        recipe = make_recipe(endpoint(web.url, api="completions", tokenizer=tokenizer()))
    assert (recipe.mode, recipe.overhead) == ("text", 1)
    assert "not confirmed: the server reports no usage" in recipe.source


@pytest.mark.parametrize("count", [None, True, 0, -3, "7", 7.5, 2**40, [7], {}])
def test_without_usage_a_chat_is_refused_in_plain_words(tokenizer, count):
    with serve({"/v1/chat/completions": usage_of(count)}) as web:
        for file in (None, tokenizer()):
            with pytest.raises(UserError, match=r"reports no usage.prompt_tokens.*--api completions .* --tokenizer"):
                make_recipe(endpoint(web.url, tokenizer=file))


@pytest.mark.parametrize("reply", [{"usage": [1]}, {"usage": "x"}, [], None, 7, {"usage": None}])
def test_answers_of_another_form_are_no_usage(reply):
    with serve({"/v1/chat/completions": (200, reply)}) as web, pytest.raises(UserError, match=r"reports no usage"):
        make_recipe(endpoint(web.url))


def test_counts_that_cannot_be_predicted_are_refused():
    # A server that cuts prompts at 40 tokens.
    def cut(body):
        return usage_of(min(40, 5 + len(body["messages"][0]["content"].split())))

    with serve({"/v1/chat/completions": cut}) as web, pytest.raises(UserError):
        make_recipe(endpoint(web.url))


def test_a_wrong_tokenizer_is_found_out(tokenizer):
    # The server's own tokens are letters; the tokenizer given says words.
    def letters(body):
        return usage_of(5 + len(body["messages"][0]["content"]))

    with serve({"/v1/chat/completions": letters}) as web, pytest.raises(UserError, match=r"really this model's"):
        make_recipe(endpoint(web.url, tokenizer=tokenizer()))


def test_counts_that_change_between_requests_are_refused():
    def noisy(body):
        text = body["messages"][0]["content"]
        return usage_of(5 + len(text.split()) + zlib.crc32(text.encode()) % 7)

    with serve({"/v1/chat/completions": noisy}) as web, pytest.raises(UserError, match=r"--tokenizer"):
        make_recipe(endpoint(web.url))


def test_a_tokenize_route_that_answers_something_else_is_told():
    with serve({"/tokenize": (200, {"ids": [1]})}) as web, pytest.raises(UserError, match=r"holds no token ids"):
        make_recipe(endpoint(web.url, "vllm", "completions"))


def test_a_file_that_is_no_tokenizer_is_told(server, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    found = inspect_endpoint(server.url, tokenizer=str(tmp_path))
    with pytest.raises(UserError, match=r"tokenizer.json: not a readable tokenizer"):
        make_recipe(found)


def test_an_error_of_the_endpoint_is_told_with_its_detail():
    reply = (400, {"error": {"message": "no chat template"}})
    with serve({"/v1/chat/completions": reply}) as web, pytest.raises(UserError, match=r"HTTP 400: .*no chat template"):
        make_recipe(endpoint(web.url))


def test_enough_words_are_asked_of_a_probe():
    assert tokens.PROBE_WORDS >= 4 * MIN_PIECES
