"""Who works when: the pipelines of steps 3, 4 and 5 as bars on a time line, with the rules that hold them apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """One bar: what is done on a row from `begin` to `end`, in units of time."""

    row: str
    begin: float
    end: float
    kind: str
    """`copy`, `matmul` or `softmax`."""
    label: str
    group: int = 0
    """Who it is for: a buffer, or a consumer."""


TURNS = ("copies", "products, softmax")


def in_turn(tiles: int, *, copy: float, work: float) -> list[Work]:
    """Step 3: each tile is copied, then worked on, with one buffer."""
    found, now = [], 0.0
    for tile in range(1, tiles + 1):
        found.append(Work(TURNS[0], now, now + copy, "copy", f"{tile}"))
        found.append(Work(TURNS[1], now + copy, now + copy + work, "matmul", f"{tile}"))
        now += copy + work
    return found


def two_buffers(tiles: int, *, copy: float, work: float) -> list[Work]:
    """Step 4: the copy of a tile begins with the work on the one before, into the buffer that has become free."""
    found: list[Work] = []
    copied = worked = 0.0
    for tile in range(1, tiles + 1):
        buffer = (tile - 1) % 2
        begin = max(copied, found[-1].begin if found else 0.0)
        copied = begin + copy
        found.append(Work(TURNS[0], begin, copied, "copy", f"{tile}{'AB'[buffer]}", buffer))
        begin = max(copied, worked)
        worked = begin + work
        found.append(Work(TURNS[1], begin, worked, "matmul", f"{tile}{'AB'[buffer]}", buffer))
    return found


PRODUCER = "producer (TMA)"


def ping_pong(tiles: int, *, product: float, softmax: float, copy: float) -> list[Work]:
    """Step 5: two consumers share the tiles that a producer copies, and take turns on the tensor cores.

    A turn is the scores of one tile (Q K^T) and the values of the tile before (P V). Scores need their K, values their
    V and their softmax; the softmax of a tile begins when its scores are there. K and V have two stages each, filled
    again when both consumers are done with them.
    """
    found: list[Work] = []
    keys, values = [0.0] * (tiles + 1), [0.0] * (tiles + 1)  # when a tile's K, V has come
    keys_done, values_done = [0.0] * (tiles + 1), [0.0] * (tiles + 1)  # when both consumers are done with it
    ready, cores, copied = [0.0, 0.0], 0.0, 0.0

    def bring(name: str, tile: int, come: list[float], done: list[float]) -> float:
        begin = max(copied, done[tile - 2] if tile > 2 else 0.0)
        come[tile] = begin + copy
        found.append(Work(PRODUCER, begin, come[tile], "copy", f"{name}{tile}"))
        return come[tile]

    for tile in range(1, tiles + 2):  # the turn after the last tile has its values only
        if tile <= tiles:
            copied = bring("K", tile, keys, keys_done)
        if tile > 1:
            copied = bring("V", tile - 1, values, values_done)
        for group in (0, 1):
            row = f"consumer {group + 1}"
            begin = max(cores, ready[group])
            if tile <= tiles:
                begin = max(begin, keys[tile])
                cores = keys_done[tile] = begin + product
                found.append(Work(row, begin, cores, "matmul", f"S{tile}", group))
                ready[group] = cores + softmax
                found.append(Work(f"softmax {group + 1}", cores, ready[group], "softmax", f"{tile}", group))
            if tile > 1:
                begin = max(cores, values[tile - 1]) if tile <= tiles else max(begin, values[tile - 1])
                cores = values_done[tile - 1] = begin + product
                found.append(Work(row, begin, cores, "matmul", f"P{tile - 1}", group))
    return found
