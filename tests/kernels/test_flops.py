"""FLOPs and bytes against golden values and against counting one by one."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import flops
from kernels.flops import Shape, square

SHAPES = st.builds(
    Shape,
    batch=st.integers(1, 2),
    heads=st.sampled_from([2, 4]),
    queries=st.integers(1, 7),
    keys=st.integers(1, 7),
    dim=st.integers(1, 3),
    kv_heads=st.sampled_from([None, 1, 2]),
    causal=st.booleans(),
)


@settings(max_examples=80, deadline=None)
@given(SHAPES)
def test_exact_flops_are_the_multiplies_and_adds_one_by_one(shape):
    count = 0
    for _ in range(shape.batch * shape.heads):
        for i, j in itertools.product(range(shape.queries), range(shape.keys)):
            if shape.causal and shape.keys - 1 - j < shape.queries - 1 - i:
                continue
            count += 2 * shape.dim  # one score
            count += 2 * shape.dim  # its part of the output
    assert flops.exact_flops(shape) == count


@pytest.mark.parametrize(
    ("shape", "counted", "exact"),
    [
        (square(4, 16, 4096, 128), 549_755_813_888, 549_755_813_888),
        (square(4, 16, 4096, 128, causal=True), 274_877_906_944, 274_945_015_808),
        (square(32, 32, 512, 64), 68_719_476_736, 68_719_476_736),
        (square(1, 1, 1, 1, causal=True), 2, 4),
        (Shape(1, 8, 1, 1024, 128, kv_heads=2), 4_194_304, 4_194_304),
    ],
)
def test_flops_of_known_sizes(shape, counted, exact):
    assert flops.flops(shape) == counted
    assert flops.exact_flops(shape) == exact


def test_the_papers_sizes_cost_the_same_work_a_token_twice_at_twice_the_length():
    sizes = [square(16384 // length, 16, length, 128) for length in (512, 1024, 16384)]
    assert [flops.flops(size) // flops.flops(sizes[0]) for size in sizes] == [1, 2, 32]


def test_bytes_of_known_sizes():
    shape = square(4, 16, 4096, 128)
    assert flops.tiled_bytes(shape) == 4 * (4 * 16 * 4096 * 128) * 2  # Q, K, V and the output, 64 MiB each
    scores = 4 * 16 * 4096 * 4096
    assert flops.textbook_bytes(shape) == flops.tiled_bytes(shape) + scores * 16
    assert flops.textbook_bytes(shape, score=2) == flops.tiled_bytes(shape) + scores * 8
    grouped = Shape(4, 16, 4096, 4096, 128, kv_heads=4)
    assert flops.tiled_bytes(grouped) == (2 + 2 / 4) * (4 * 16 * 4096 * 128) * 2


def test_the_textbook_way_grows_with_the_square_and_tiles_with_the_length():
    small, large = square(1, 16, 1024, 128), square(1, 16, 4096, 128)
    assert flops.tiled_bytes(large) == 4 * flops.tiled_bytes(small)
    extra = [flops.textbook_bytes(shape) - flops.tiled_bytes(shape) for shape in (small, large)]
    assert extra[1] == 16 * extra[0]


def test_intensity():
    assert flops.intensity(square(4, 16, 4096, 128)) == pytest.approx(2048)  # 4 N^2 d over 8 N d: N / 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch": 0}, "batch must be at least 1, not 0"),
        ({"keys": -1}, "keys must be at least 1"),
        ({"kv_heads": 3}, "no multiple of 3"),
        ({"kv_heads": 0}, "no multiple of 0"),
    ],
)
def test_sizes_that_are_none_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Shape(**({"batch": 1, "heads": 4, "queries": 2, "keys": 2, "dim": 8} | change))
