"""The float64 reference against attention one number at a time."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.reference import attention, attention_varlen
from tests.kernels import plain

SIZES = st.tuples(
    st.integers(1, 3),  # batch
    st.integers(1, 9),  # queries
    st.integers(1, 9),  # keys
    st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3)]),  # heads, key heads
    st.integers(1, 5),  # dim
)


def drawn(seed, size, spread=1.0):
    batch, queries, keys, (heads, kv_heads), dim = size
    random = np.random.default_rng(seed)
    q = random.normal(size=(batch, queries, heads, dim)) * spread
    k, v = (random.normal(size=(batch, keys, kv_heads, dim)) for _ in range(2))
    return q, k, v


def by_hand(q, k, v, causal, scale=None):
    group = q.shape[2] // k.shape[2]
    return np.array(
        [
            [
                plain.attention(
                    q[b, :, h].tolist(), k[b, :, h // group].tolist(), v[b, :, h // group].tolist(), causal, scale
                )
                for h in range(q.shape[2])
            ]
            for b in range(q.shape[0])
        ]
    ).transpose(0, 2, 1, 3)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), size=SIZES, causal=st.booleans(), spread=st.sampled_from([0.0, 1.0, 300.0]))
def test_attention_is_what_one_works_out_by_hand(seed, size, causal, spread):
    q, k, v = drawn(seed, size, spread)
    np.testing.assert_allclose(attention(q, k, v, causal=causal), by_hand(q, k, v, causal), rtol=1e-9, atol=1e-12)


def test_a_scale_of_ones_own():
    q, k, v = drawn(1, (1, 4, 4, (2, 2), 3))
    np.testing.assert_allclose(attention(q, k, v, scale=0.3), by_hand(q, k, v, False, 0.3), rtol=1e-12)


def test_two_keys_with_known_weights():
    # Scores ln 3 and 0: weights 3/4 and 1/4.
    q, k = np.array([[[[1.0]]]]), np.array([[[[np.log(3)]], [[0.0]]]])
    v = np.array([[[[8.0]], [[4.0]]]])
    assert attention(q, k, v).item() == pytest.approx(7.0, rel=1e-15)


def test_causal_the_first_query_takes_the_first_value_and_later_keys_do_not_matter():
    q, k, v = drawn(3, (1, 6, 6, (2, 1), 4))
    output = attention(q, k, v, causal=True)
    np.testing.assert_allclose(output[:, 0], np.repeat(v[:, 0], 2, axis=1))
    k[:, 4:], v[:, 4:] = 1e6, np.nan
    np.testing.assert_array_equal(attention(q, k, np.nan_to_num(v), causal=True)[:, :4], output[:, :4])


def test_causal_with_a_cache_the_last_query_sees_all_and_with_too_few_keys_the_first_see_none():
    q, k, v = drawn(4, (1, 2, 5, (1, 1), 3))
    np.testing.assert_allclose(attention(q, k, v, causal=True)[:, 1:], attention(q[:, 1:], k, v))
    q, k, v = drawn(5, (1, 5, 2, (1, 1), 3))
    output = attention(q, k, v, causal=True)
    assert not output[:, :3].any()
    assert output[:, 3:].all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5), causal=st.booleans())
def test_varlen_is_each_sequence_alone(seed, lengths, causal):
    tokens = sum(lengths)
    random = np.random.default_rng(seed)
    q, k, v = (random.normal(size=(tokens, heads, 3)) for heads in (4, 2, 2))
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    output = attention_varlen(q, k, v, bounds, causal=causal)
    assert output.shape == q.shape
    for begin, length in zip(bounds, lengths, strict=False):
        if length:
            one = slice(begin, begin + length)
            np.testing.assert_allclose(output[one], by_hand(q[None, one], k[None, one], v[None, one], causal)[0])


@pytest.mark.parametrize(
    ("q", "k", "v", "words"),
    [
        ((1, 2, 4), (1, 2, 1, 4), (1, 2, 1, 4), "4 axes"),
        ((1, 2, 1, 4), (1, 2, 1, 4), (1, 3, 1, 4), "one shape"),
        ((1, 2, 1, 4), (2, 2, 1, 4), (2, 2, 1, 4), "batch: 1 and 2"),
        ((1, 2, 1, 4), (1, 2, 1, 8), (1, 2, 1, 8), "head dim: 4 and 8"),
        ((1, 2, 1, 0), (1, 2, 1, 0), (1, 2, 1, 0), "head dim is 0"),
        ((1, 2, 3, 4), (1, 2, 2, 4), (1, 2, 2, 4), "3 query heads are no multiple of 2"),
        ((1, 2, 3, 4), (1, 2, 0, 4), (1, 2, 0, 4), "no multiple of 0"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(q, k, v, words):
    with pytest.raises(ValueError, match=words):
        attention(np.zeros(q), np.zeros(k), np.zeros(v))


@pytest.mark.parametrize("bounds", [[0], [0, 3], [1, 4], [0, 3, 2, 4], []])
def test_bounds_that_do_not_cover_the_tokens_are_refused(bounds):
    with pytest.raises(ValueError, match="cu_seqlens must rise from 0 to 4"):
        attention_varlen(np.zeros((4, 1, 2)), np.zeros((4, 1, 2)), np.zeros((4, 1, 2)), np.array(bounds))


def test_varlen_shapes_are_refused():
    with pytest.raises(ValueError, match="3 axes"):
        attention_varlen(np.zeros((1, 4, 1, 2)), np.zeros((4, 1, 2)), np.zeros((4, 1, 2)), np.array([0, 4]))
    with pytest.raises(ValueError, match="4 tokens and k has 5"):
        attention_varlen(np.zeros((4, 1, 2)), np.zeros((5, 1, 2)), np.zeros((5, 1, 2)), np.array([0, 4]))
