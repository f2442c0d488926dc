"""The drawings of the page: tiles, the online softmax's state, the swizzle's banks, the pipelines in time.

Their numbers come from `emulation`, so a drawing shows what the code does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kernels import emulation
from kernels.emulation import State
from kernels.schedule import PRODUCER, TURNS, Work, in_turn, ping_pong, two_buffers
from kernels.style import Canvas
from kernels.words import Language

WIDTH = 760


def tiling(say: Language) -> str:
    """The square of scores in tiles, and what lies where."""
    canvas = Canvas(WIDTH, 372, "Tiling: the N x N scores exist one tile at a time", say)
    left, top, side, count, row, column = 76, 84, 34, 6, 3, 1
    end = left + side * count
    canvas.text(left + side * count / 2, 24, "keys →", fill="muted", anchor="middle", size=12)
    canvas.text(20, top + side * count / 2, "queries →", fill="muted", anchor="middle", size=12, turn=-90)
    for name, y, at in (("K", top - 40, left - 14), ("V", top + side * count + 12, end + 14)):
        canvas.text(at, y + 19, name, bold=True, anchor="middle")
        for j in range(count):
            here = j == column
            canvas.rect(left + j * side, y, side - 2, 28, "blue", opacity=0.75 if here else 0.14)
    for name, x, y in (("Q", left - 40, top + side * count + 15), ("O", end + 12, top - 8)):
        canvas.text(x + 14, y, name, bold=True, anchor="middle")
        for i in range(count):
            here = i == row
            fill = "green" if name == "O" else "blue"
            canvas.rect(x, top + i * side, 28, side - 2, fill, opacity=0.75 if here else 0.14)
    _scores(canvas, left, top, side, (row, column), count)
    key_y = top + side * count + 60
    for i, (fill, opacity, words) in enumerate(
        (("orange", 0.9, "this tile of S"), ("orange", 0.3, "taken in, forgotten"), ("none", 1.0, "causal: left out"))
    ):
        x = 30 + (0, 116, 252)[i]
        canvas.rect(x, key_y - 10, 12, 12, fill, opacity=opacity, stroke="none" if i < 2 else "muted", dashed=i == 2)
        canvas.text(x + 18, key_y, words, size=11.5)

    x, width = 404, 330
    for i, (head, lines, colour) in enumerate(
        (
            ("Device memory", ("Q, K, V and O: N × d numbers each.", "Of S and P, N × N each: nothing."), "muted"),
            ("Shared memory of one processor", ("One tile of Q, and by turns", "one tile of K and one of V."), "blue"),
            (
                "Registers of its threads",
                ("One tile of S, turned into P in place;", "of each query: m, l and its row of O."),
                "orange",
            ),
        )
    ):
        y = 30 + i * 108
        canvas.rect(x, y, width, 84, colour, opacity=0.1, stroke=colour, radius=8)
        canvas.text(x + 14, y + 24, head, bold=True)
        canvas.lines(x + 14, y + 47, lines, step=20)
        if i < 2:
            canvas.path([(x + 60, y + 85), (x + 60, y + 106)], "muted", arrow=True, width=1.6)
            canvas.text(x + 72, y + 100, ("tiles", "small matrices")[i], size=11.5, fill="muted")
            if i == 0:
                canvas.path([(x + 270, y + 106), (x + 270, y + 86)], "green", arrow=True, width=1.6)
                canvas.text(x + 282, y + 100, "O, once", size=11.5, fill="muted")
    return canvas.render()


def _scores(canvas: Canvas, left: int, top: int, side: int, at: tuple[int, int], count: int) -> None:
    """The tiles of S: the one at `at`, those of its row taken in before, and those that a causal mask leaves out."""
    for i in range(count):
        for j in range(count):
            x, y, size = left + j * side, top + i * side, side - 2
            if i == at[0] and j <= at[1]:
                canvas.rect(x, y, size, size, "orange", opacity=0.9 if j == at[1] else 0.3)
            elif j > i:
                canvas.rect(x, y, size, size, stroke="grid", dashed=True)
                canvas.path([(x + 9, y + 9), (x + size - 9, y + size - 9)], "grid")
                canvas.path([(x + 9, y + size - 9), (x + size - 9, y + 9)], "grid")
            else:
                canvas.rect(x, y, size, size, stroke="muted")


TILES = (((1.0, 3.0, 2.0), (10.0, 20.0, 30.0)), ((5.0, 2.0, 4.0), (40.0, 50.0, 60.0)))
"""Scores and values of the online softmax's example: one query, two tiles of three keys, values of one number."""


def online_softmax(say: Language) -> str:
    """What is kept of the keys seen so far, and how the second tile changes it."""
    canvas = Canvas(WIDTH, 384, "Online softmax: two tiles of scores of one query", say)
    state = State.empty(1, 1, np.float64)
    unit, base, tops = 20.0, 172, (60, 330)
    states = []
    for number, (scores, values) in enumerate(TILES):
        before = state.highest[0]
        state = state.take(np.array([scores]), np.array(values)[:, None])
        states.append(state)
        x = tops[number]
        canvas.text(x, 34, say("tile {number}", number=number + 1), bold=True)
        canvas.path([(x - 8, base), (x + 168, base)], "muted")
        for i, (score, value) in enumerate(zip(scores, values, strict=True)):
            at = x + i * 54
            canvas.rect(at, base - unit * score, 40, unit * score, "blue", opacity=0.75)
            canvas.text(at + 20, base - unit * score - 5, f"s = {score:g}", size=11.5, anchor="middle")
            canvas.text(at + 20, base + 16, f"v = {value:g}", size=11.5, anchor="middle", fill="muted")
        if number:
            height = base - unit * before
            canvas.path([(x - 8, height), (x + 168, height)], "muted", dashed=True)
            canvas.text(x + 172, height + 4, say("m was {value:g}", value=before), size=11.5, fill="muted")
        height = base - unit * state.highest[0]
        canvas.path([(x - 8, height), (x + 168, height)], "orange", width=1.8)
        canvas.text(x + 172, height + 4, f"m = {state.highest[0]:g}", size=12, fill="orange", bold=True)
    top = 216
    for number, state in enumerate(states):
        x = (36, 330)[number]
        canvas.rect(x, top, 206, 92, "orange", opacity=0.1, stroke="orange", radius=8)
        canvas.lines(
            x + 12,
            top + 26,
            (
                f"m = max s = {state.highest[0]:g}",
                f"l = Σ exp(s − m) = {state.total[0]:.3f}",
                f"o = Σ exp(s − m) v = {state.output[0, 0]:.2f}",
            ),
            step=26,
        )
    canvas.path([(244, top + 46), (326, top + 46)], "orange", arrow=True, width=1.8)
    low, high = states[0].highest[0], states[1].highest[0]
    canvas.text(284, top + 34, "l and o", size=11.5, anchor="middle")
    canvas.text(284, top + 64, f"× exp({low:g} − {high:g})", size=11.5, anchor="middle")
    canvas.text(284, top + 80, f"= {np.exp(low - high):.3f}", size=11.5, anchor="middle")
    canvas.path([(538, top + 46), (574, top + 46)], "green", arrow=True, width=1.8)
    canvas.rect(578, top, 150, 92, "green", opacity=0.1, stroke="green", radius=8)
    canvas.text(590, top + 26, "at the end", size=12, fill="muted")
    canvas.text(590, top + 56, f"o / l = {states[1].result()[0, 0]:.2f}", bold=True)
    every = np.concatenate([np.array(tile) for tile in zip(*TILES, strict=True)], axis=None).reshape(2, -1)
    weights = np.exp(every[0] - every[0].max())
    whole = float(weights @ every[1] / weights.sum())
    canvas.lines(
        36,
        top + 126,
        (
            say(
                "softmax over all six scores at once, times v: {value:.2f}. The same, and no score was kept.",
                value=whole,
            ),
            "A new largest score only shrinks what was summed up before: by one factor for each query.",
        ),
        step=22,
    )
    return canvas.render()


READ = 2
"""The chunk whose eight rows are read together in the swizzle's picture."""


def swizzle(say: Language) -> str:
    """The banks in which eight rows of a tile lie, before and after, and who waits for whom."""
    canvas = Canvas(WIDTH, 442, "The swizzle: eight rows of a tile in the 32 banks of shared memory", say)
    for part, (head, layout) in enumerate((("as it comes", emulation.plain(64)), ("swizzled", emulation.swizzled(64)))):
        left, top, wide, high = 48 + part * 372, 92, 38, 26
        step = ("step 2", "step 3 and on")[part]
        canvas.text(left, 30, say("{step}: {what}", step=say(step), what=say(head)), bold=True)
        canvas.text(
            left, 52, ("chunk c of row r in column c", "chunk c of row r in column c XOR (r mod 8)")[part], size=12
        )
        for group in range(8):
            canvas.text(
                left + group * wide + 18,
                top - 8,
                f"{4 * group}–{4 * group + 3}",
                size=10,
                anchor="middle",
                fill="muted",
            )
        canvas.text(left - 8, top - 8, "bank", size=10, anchor="end", fill="muted")
        for row, line in enumerate(emulation.banks(layout, 8, 8)):
            canvas.text(left - 8, top + row * high + 17, f"r{row}", size=11, anchor="end", fill="muted")
            for chunk, bank in enumerate(line):
                x, y, read = left + bank // 4 * wide, top + row * high, chunk == READ
                canvas.rect(x, y, wide - 2, high - 2, "orange" if read else "blue", opacity=0.85 if read else 0.1)
                canvas.text(
                    x + wide / 2 - 1,
                    y + 17,
                    f"c{chunk}",
                    size=11,
                    anchor="middle",
                    bold=read,
                    fill="card" if read else "muted",
                )
        accesses = emulation.matrix_read(layout, 0, READ)
        asked = [0] * 32
        for address in accesses:
            for bank in range(4):
                asked[address // 4 % 32 + bank] += 1
        foot = top + 8 * high + 96
        canvas.path([(left, foot), (left + 8 * wide, foot)], "muted")
        for bank, words in enumerate(asked):
            if words:
                canvas.rect(left + bank * wide / 4, foot - words * 9, wide / 4 - 1.5, words * 9, "orange", opacity=0.85)
        canvas.text(left, top + 8 * high + 15, "words asked of each bank", size=11, fill="muted")
        trips = emulation.trips(accesses, emulation.CHUNK)
        canvas.text(
            left,
            foot + 26,
            say("one read of c{chunk}, rows 0 to 7: {trips} trips", chunk=READ, trips=trips)
            if trips > 1
            else say("one read of c{chunk}, rows 0 to 7: one trip", chunk=READ),
            bold=True,
        )
    return canvas.render()


COLOURS = {"copy": "blue", "matmul": "orange", "softmax": "green", "wait": "none"}


def _timeline(canvas: Canvas, work: list[Work], rows: list[str], left: float, top: float, unit: float) -> None:
    """Draw work on its rows; `unit` pixels are one unit of time."""
    for i, row in enumerate(rows):
        canvas.text(left - 12, top + i * 34 + 18, row, size=12, anchor="end")
        last = max(piece.end for piece in work)
        canvas.path([(left, top + i * 34 + 28), (left + last * unit, top + i * 34 + 28)], "grid")
    for piece in work:
        x, y, width = left + piece.begin * unit, top + rows.index(piece.row) * 34, (piece.end - piece.begin) * unit
        fill = COLOURS[piece.kind]
        canvas.rect(
            x + 0.5, y, width - 1, 26, fill, opacity=0.22 if piece.group % 2 == 0 else 0.5, stroke=fill, radius=3
        )
        canvas.text(x + width / 2, y + 17.5, piece.label, size=11, anchor="middle")


def _time_arrow(canvas: Canvas, left: float, y: float, length: float) -> None:
    canvas.path([(left, y), (left + length, y)], "muted", arrow=True)
    canvas.text(left + length + 8, y + 4, "time (not to scale)", size=11.5, fill="muted")


def double_buffering(say: Language) -> str:
    """Steps 3 and 4 in time: copies before the work, and behind it."""
    canvas = Canvas(WIDTH, 330, "Double buffering: copy the next tile while this one is worked on", say)
    left, unit = 150, 17
    before, after = in_turn(4, copy=3, work=5), two_buffers(4, copy=3, work=5)
    canvas.text(24, 32, "step 3: copy, wait, work", bold=True)
    _timeline(canvas, before, list(TURNS), left, 48, unit)
    canvas.text(24, 158, "step 4: two buffers, A and B", bold=True)
    _timeline(canvas, after, list(TURNS), left, 174, unit)
    long, short = (left + unit * max(piece.end for piece in work) for work in (before, after))
    canvas.path([(long, 42), (long, 242)], "green", dashed=True)
    canvas.path([(short, 168), (short, 242)], "green", dashed=True)
    canvas.path([(long, 205), (short + 2, 205)], "green", arrow=True, width=1.6)
    canvas.text((long + short) / 2, 196, "saved", size=12, anchor="middle", fill="green", bold=True)
    _time_arrow(canvas, left, 262, 480)
    canvas.text(
        24,
        300,
        "cp.async goes from device memory to shared memory past the registers; a thread starts it and works on.",
        size=12.5,
    )
    return canvas.render()


def warp_specialisation(say: Language) -> str:
    """Step 5 in time: a producer, two consumers that take turns, and what the tensor cores see."""
    canvas = Canvas(WIDTH, 466, "Warp specialisation and ping-pong: one softmax behind the other's products", say)
    left, unit = 150, 19
    work = ping_pong(4, product=1.5, softmax=3, copy=1.4)
    rows = [PRODUCER, "consumer 1", "softmax 1", "consumer 2", "softmax 2"]
    canvas.text(24, 32, "step 5: each warpgroup has its own task", bold=True)
    _timeline(canvas, work, rows, left, 50, unit)
    busy = [Work("tensor cores", p.begin, p.end, "matmul", p.label, p.group) for p in work if p.kind == "matmul"]
    canvas.text(24, 250, "what the tensor cores see", bold=True)
    _timeline(canvas, busy, ["tensor cores"], left, 264, unit)
    _time_arrow(canvas, left, 312, 470)
    for i, (kind, words) in enumerate(
        (("copy", "copy of K or V"), ("matmul", "products (wgmma)"), ("softmax", "softmax"))
    ):
        x = 24 + i * 170
        canvas.rect(x, 336, 14, 14, COLOURS[kind], opacity=0.35, stroke=COLOURS[kind])
        canvas.text(x + 22, 348, words, size=12)
    canvas.lines(
        24,
        380,
        (
            "S2, P1: the scores of tile 2 and then the values of tile 1, started together. The softmax of tile 2",
            "needs S2 only and runs beside P1. Barriers make the consumers take turns, so that the products of one",
            "cover the softmax of the other. The producer fills a buffer as soon as both are done with it, and has",
            "given its registers to them (setmaxnreg).",
        ),
        step=21,
        size=12.5,
    )
    return canvas.render()


DRAWINGS: dict[str, Callable[[Language], str]] = {
    "tiling": tiling,
    "online-softmax": online_softmax,
    "swizzle": swizzle,
    "double-buffering": double_buffering,
    "warp-specialisation": warp_specialisation,
}
"""By the name of their files."""
