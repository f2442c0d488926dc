"""Prompts: exact length, unique from the first token, or sharing a prefix."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.endpoints.prompts import PromptFactory, PromptRecipe, _largest_prime
from loadgen.errors import UserError


def words(count: int) -> tuple[str, ...]:
    return tuple(f"w{i:04d}" for i in range(count))


def ids(count: int) -> tuple[str, ...]:
    return tuple(str(100 + i) for i in range(count))


def text_recipe(count=96, overhead=5) -> PromptRecipe:
    return PromptRecipe("text", overhead, words(count), (), "test")


def ids_recipe(count=96, head=(2,)) -> PromptRecipe:
    return PromptRecipe("ids", len(head), ids(count), head, "test")


def pieces_of(prompt_json: str) -> list[str]:
    """The pieces of a prompt as a server would see them; raises ValueError when it is not JSON."""
    prompt = json.loads(prompt_json)
    return [str(token) for token in prompt] if isinstance(prompt, list) else prompt.split(" ")


recipes = st.one_of(
    st.builds(text_recipe, st.integers(16, 300), st.integers(0, 40)),
    st.builds(ids_recipe, st.integers(16, 300), st.lists(st.integers(0, 9), max_size=3).map(tuple)),
)


@given(recipes, st.integers(1, 700), st.integers(0, 60), st.integers(0, 10**7), st.text(max_size=5))
def test_every_prompt_is_exactly_as_long_as_asked_for(recipe, prompt_tokens, shared, number, seed):
    try:
        factory = PromptFactory(recipe, prompt_tokens=prompt_tokens, seed=seed, shared_prefix_tokens=shared)
    except UserError:
        around = recipe.overhead if recipe.mode == "text" else len(recipe.head_ids)
        assert prompt_tokens <= around + shared
        return
    pieces = pieces_of(factory.prompt(number))
    assert all(pieces)
    assert len(pieces) + (recipe.overhead if recipe.mode == "text" else 0) == prompt_tokens
    known = {*recipe.pieces, *map(str, recipe.head_ids)}
    assert known >= set(pieces)


@given(recipes, st.integers(1, 120), st.integers(0, 40))
def test_too_short_a_prompt_is_refused_with_the_least_possible(recipe, prompt_tokens, shared):
    def possible(tokens: int) -> bool:
        try:
            PromptFactory(recipe, prompt_tokens=tokens, seed="s", shared_prefix_tokens=shared)
        except UserError:
            return False
        return True

    try:
        PromptFactory(recipe, prompt_tokens=prompt_tokens, seed="s", shared_prefix_tokens=shared)
    except UserError as error:
        told = re.search(r"Ask for (\d+) or more", str(error))
        assert told is not None
        least = int(told[1])
        assert least == next(tokens for tokens in range(prompt_tokens, 10_000) if possible(tokens))


@pytest.mark.parametrize("recipe", [text_recipe(), ids_recipe()])
@pytest.mark.parametrize("prompt_tokens", [7, 8, 300])
@pytest.mark.parametrize("start", [0, 5, 63])
@pytest.mark.parametrize("stride", [1, 2, 64])
def test_the_first_own_token_is_distinct_for_as_long_as_there_are_pieces(recipe, prompt_tokens, start, stride):
    factory = PromptFactory(recipe, prompt_tokens=prompt_tokens, seed="s")
    opening = 1 if recipe.mode == "ids" else 0
    prime = _largest_prime(len(recipe.pieces))
    firsts = {pieces_of(factory.prompt(start + i * stride))[opening] for i in range(prime)}
    assert len(firsts) == prime


@pytest.mark.parametrize("stride", [1, 2, 64])
def test_the_first_two_own_tokens_are_distinct_for_the_square_of_that(stride):
    factory = PromptFactory(text_recipe(count=20), prompt_tokens=7, seed="s")
    prime = _largest_prime(20)
    pairs = {factory.prompt(3 + i * stride) for i in range(prime * prime)}
    assert len(pairs) == prime * prime


def test_workers_that_share_out_the_numbers_never_make_the_same_prompt():
    factory = PromptFactory(text_recipe(count=700), prompt_tokens=64, seed="s")
    prompts = [factory.prompt(i * 4 + seat) for seat in range(4) for i in range(500)]
    assert len(set(prompts)) == len(prompts)


@given(st.sampled_from([text_recipe(), ids_recipe(), ids_recipe(head=())]), st.integers(1, 200), st.integers(0, 10**6))
def test_a_shared_prefix_is_the_same_in_every_prompt_and_block_and_nothing_more_is(recipe, shared, number):
    def own(seed: str, n: int, more: int) -> list[str]:
        factory = PromptFactory(recipe, prompt_tokens=shared + 5 + more, seed=seed, shared_prefix_tokens=shared)
        return pieces_of(factory.prompt(n))

    opening = (len(recipe.head_ids) if recipe.mode == "ids" else 0) + shared
    one, other = own("block 1", number, 20), own("block 1", number + 1, 20)
    assert one[:opening] == other[:opening] == own("block 2", number + 7, 1)[:opening]
    assert one[opening] != other[opening]


def test_a_prompt_depends_on_its_number_and_seed_alone():
    def prompts(seed: str) -> list[str]:
        factory = PromptFactory(text_recipe(), prompt_tokens=40, seed=seed)
        return [factory.prompt(n) for n in range(20)]

    assert prompts("a") == prompts("a")
    assert prompts("a") != prompts("b")


def test_bos_opens_an_ids_prompt_only_where_there_is_room_for_it():
    recipe = ids_recipe(head=(2, 3))
    for tokens, opened in ((1, False), (2, False), (3, True), (50, True)):
        pieces = pieces_of(PromptFactory(recipe, prompt_tokens=tokens, seed="s").prompt(0))
        assert len(pieces) == tokens
        assert (pieces[:2] == ["2", "3"]) is opened


def test_too_few_pieces_are_refused():
    with pytest.raises(UserError, match="Only 15 one-token words were found"):
        PromptFactory(text_recipe(count=15), prompt_tokens=64, seed="s")
