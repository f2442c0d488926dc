"""The online softmax and the swizzle, each against an oracle of its own."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import emulation
from kernels.emulation import State, online_attention
from tests.kernels import plain

DIMS = (64, 128)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    queries=st.integers(1, 20),
    keys=st.integers(1, 20),
    dim=st.integers(1, 6),
    tiles=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    causal=st.booleans(),
    spread=st.sampled_from([0.0, 1.0, 50.0, 1e4]),
)
def test_tile_by_tile_is_attention(seed, queries, keys, dim, tiles, causal, spread):
    random = np.random.default_rng(seed)
    q = random.normal(size=(queries, dim)) * spread
    k, v = (random.normal(size=(keys, dim)) for _ in range(2))
    expected = np.array(plain.attention(q.tolist(), k.tolist(), v.tolist(), causal))
    output = online_attention(q, k, v, causal=causal, tile_queries=tiles[0], tile_keys=tiles[1], dtype=np.float64)
    np.testing.assert_allclose(output, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("causal", [False, True])
def test_in_float32_it_is_as_exact_as_float32(causal):
    random = np.random.default_rng(7)
    q, k, v = (random.normal(size=(150, 16)).astype(np.float32) for _ in range(3))
    expected = np.array(plain.attention(q.tolist(), k.tolist(), v.tolist(), causal))
    output = online_attention(q, k, v, causal=causal)
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, expected, atol=3e-6)


@given(
    scores=st.lists(st.floats(-500, 500), min_size=1, max_size=12),
    cuts=st.sets(st.integers(1, 11)),
)
def test_the_state_says_the_same_however_keys_are_cut(scores, cuts):
    """Highest score and sum after any tiling are those of one look at all scores."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(scores)), len(scores)]
    state = State.empty(1, 1, np.float64)
    for begin, end in itertools.pairwise(edges):
        part = np.array([scores[begin:end]])
        state = state.take(part, np.ones((part.shape[1], 1)))
    assert state.highest[0] == max(scores)
    assert state.total[0] == pytest.approx(sum(2.718281828459045 ** (s - max(scores)) for s in scores), rel=1e-9)
    assert state.result()[0, 0] == pytest.approx(1.0, rel=1e-12)


def test_hidden_keys_leave_the_state_as_it_was():
    state = State.empty(2, 3).take(np.full((2, 4), -np.inf, np.float32), np.full((4, 3), 9, np.float32))
    assert not state.total.any()
    assert not state.output.any()
    assert not state.result().any()
    seen = state.take(np.zeros((2, 1), np.float32), np.full((1, 3), 5, np.float32))
    hidden = seen.take(np.full((2, 2), -np.inf, np.float32), np.ones((2, 3), np.float32))
    np.testing.assert_array_equal(hidden.result(), np.full((2, 3), 5))


def test_equal_keys_weigh_the_same():
    q, k = np.ones((3, 4)), np.ones((10, 4))
    v = np.arange(40.0).reshape(10, 4)
    output = online_attention(q, k, v, tile_keys=3, dtype=np.float64)
    np.testing.assert_allclose(output, np.tile(v.mean(axis=0), (3, 1)))


@pytest.mark.parametrize("shapes", [((2, 3, 4), (3, 4), (3, 4)), ((2, 4), (3, 5), (3, 5)), ((2, 4), (3, 4), (2, 4))])
def test_shapes_of_one_head(shapes):
    with pytest.raises(ValueError, match="one head has q"):
        online_attention(*(np.zeros(shape) for shape in shapes))


def test_a_tile_has_a_size():
    with pytest.raises(ValueError, match="at least 1 query and 1 key, not 0 and 64"):
        online_attention(np.zeros((2, 4)), np.zeros((2, 4)), np.zeros((2, 4)), tile_queries=0)


def waits(accesses, size):
    """Trips by the rule itself: in each, every bank gives one word to all who want it."""
    wanted = {(byte // 4 % 32, byte // 128) for address in accesses for byte in range(address, address + size)}
    made = 0
    while wanted:
        served = {}
        for bank, line in sorted(wanted):
            served.setdefault(bank, line)
        wanted -= set(served.items())
        made += 1
    return made


@given(st.lists(st.integers(0, 255), max_size=32), st.sampled_from([2, 4, 8, 16]))
def test_trips_are_counted_by_the_rule(places, size):
    accesses = [place * size for place in places]
    assert emulation.trips(accesses, size) == waits(accesses, size)


@pytest.mark.parametrize(
    ("accesses", "size", "trips"),
    [
        ([], 4, 0),
        (range(0, 128, 4), 4, 1),  # each lane its bank
        ([0] * 32, 4, 1),  # one word for all
        (range(0, 256, 8), 4, 2),  # every second word
        (range(0, 4096, 128), 4, 32),  # a column of 32 rows of 128 bytes
        (range(0, 64, 2), 2, 1),  # two lanes a word
    ],
)
def test_trips_of_known_patterns(accesses, size, trips):
    assert emulation.trips(list(accesses), size) == trips


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("layout", [emulation.plain, emulation.swizzled])
def test_a_layout_is_a_bijection_within_each_row(layout, dim):
    """No two chunks share a place, none lies outside its row, and none is torn."""
    place = layout(dim)
    for row in range(64):
        found = sorted(place(row, chunk) for chunk in range(dim // 8))
        assert found == [row * dim * 2 + 16 * i for i in range(dim // 8)]


@pytest.mark.parametrize("dim", DIMS)
def test_every_read_and_store_of_a_swizzled_tile_is_free_of_conflicts(dim):
    """Brute force over every matrix of a 64-row tile, with the trips counted by the rule."""
    place = emulation.swizzled(dim)
    chunks = dim // 8
    for row in range(64 - 7):
        for chunk in range(chunks):
            assert waits(emulation.matrix_read(place, row, chunk), 16) == 1
            assert waits(emulation.fragment_read(place, row, chunk), 4) == 1
            assert waits(emulation.column_read(place, row, 8 * chunk), 2) == 1
    for row, chunk in itertools.product(range(64), range(0, chunks, 8)):
        assert waits(emulation.row_store(place, row, chunk), 16) == 1


@pytest.mark.parametrize("dim", DIMS)
def test_a_plain_tile_makes_eight_rows_wait_for_one_another(dim):
    place = emulation.plain(dim)
    for row, chunk in itertools.product(range(57), range(dim // 8)):
        assert emulation.trips(emulation.matrix_read(place, row, chunk), 16) == 8
        assert emulation.trips(emulation.fragment_read(place, row, chunk), 4) == 8
        assert emulation.trips(emulation.column_read(place, row, 8 * chunk), 2) == 4
    assert emulation.trips(emulation.row_store(place, 0, 0), 16) == 1


def test_in_rows_of_128_bytes_it_is_the_swizzle_of_tma():
    """CU_TENSOR_MAP_SWIZZLE_128B: bits 4 to 6 of the address are XORed with bits 7 to 9."""
    place, plain_place = emulation.swizzled(64), emulation.plain(64)
    for row, chunk in itertools.product(range(64), range(8)):
        address = plain_place(row, chunk)
        assert place(row, chunk) == address ^ ((address >> 7 & 7) << 4)


def test_the_picture_shows_banks():
    assert emulation.banks(emulation.plain(64), 2, 3) == [[0, 4, 8], [0, 4, 8]]
    assert emulation.banks(emulation.swizzled(64), 2, 3) == [[0, 4, 8], [4, 0, 12]]


@pytest.mark.parametrize("dim", [0, 8, 72])
def test_a_row_must_be_whole_trips(dim):
    with pytest.raises(ValueError, match="no multiple of 128 bytes"):
        emulation.swizzled(dim)
