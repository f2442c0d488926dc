"""The pipelines in time: nothing begins before what it needs, and nobody does two things at once."""

import itertools

import pytest

from kernels.schedule import PRODUCER, TURNS, in_turn, ping_pong, two_buffers


def by_label(work, row, buffers=""):
    return {piece.label.rstrip(buffers): piece for piece in work if piece.row == row}


def assert_one_at_a_time(pieces):
    ordered = sorted(pieces, key=lambda piece: piece.begin)
    assert all(a.end <= b.begin for a, b in itertools.pairwise(ordered))


@pytest.mark.parametrize("copy", [1, 5])
def test_in_turn_takes_the_sum(copy):
    work = in_turn(4, copy=copy, work=3)
    assert_one_at_a_time(work)
    assert max(piece.end for piece in work) == 4 * (copy + 3)


@pytest.mark.parametrize(("copy", "total"), [(1, 1 + 4 * 3), (5, 4 * 5 + 3)])
def test_two_buffers_take_the_longer_of_both(copy, total):
    work = two_buffers(4, copy=copy, work=3)
    copies, products = by_label(work, TURNS[0], "AB"), by_label(work, TURNS[1], "AB")
    assert_one_at_a_time(copies.values())
    assert_one_at_a_time(products.values())
    for tile in "1234":
        assert products[tile].begin >= copies[tile].end
    for tile in (3, 4):  # into the buffer of the tile two before, which is done with
        assert copies[str(tile)].begin >= products[str(tile - 2)].end
    assert max(piece.end for piece in work) == total


@pytest.mark.parametrize(("product", "softmax", "copy"), [(1.5, 3, 1.4), (1, 4, 1), (2, 1, 1), (1, 1, 3)])
def test_ping_pong_holds_its_rules(product, softmax, copy):
    tiles = 5
    work = ping_pong(tiles, product=product, softmax=softmax, copy=copy)
    assert_one_at_a_time([piece for piece in work if piece.kind == "matmul"])
    copies = by_label(work, PRODUCER)
    assert_one_at_a_time(copies.values())
    for group in (1, 2):
        products, softmaxes = by_label(work, f"consumer {group}"), by_label(work, f"softmax {group}")
        assert_one_at_a_time(softmaxes.values())
        for tile in range(1, tiles + 1):
            assert products[f"S{tile}"].begin >= copies[f"K{tile}"].end
            assert softmaxes[f"{tile}"].begin >= products[f"S{tile}"].end
            assert products[f"P{tile}"].begin >= max(copies[f"V{tile}"].end, softmaxes[f"{tile}"].end)
        for tile in range(3, tiles + 1):
            assert copies[f"K{tile}"].begin >= products[f"S{tile - 2}"].end
            assert copies[f"V{tile}"].begin >= products[f"P{tile - 2}"].end


def test_with_a_softmax_no_longer_than_the_others_turn_the_tensor_cores_never_wait():
    work = ping_pong(6, product=1.5, softmax=3, copy=1)
    turns = sorted((p for p in work if p.kind == "matmul"), key=lambda piece: piece.begin)
    steady = [piece for piece in turns if piece.label not in ("S1", "P6")]
    assert all(b.begin == a.end for a, b in itertools.pairwise(steady))
