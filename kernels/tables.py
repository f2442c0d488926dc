"""The page's tables: Markdown from the measurements, put between markers, so that no figure is typed by hand.

A marker is `<!-- table: NAME -->`, and `<!-- end -->` ends what stands for it. A table that has nothing to show yet
says "not measured yet".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kernels import emulation, flops
from kernels.cards import card_of
from kernels.measured import BETTER, DIM, DTYPE, Bench, Case, Counters, Measured, Spread
from kernels.steps import NAMES
from kernels.style import LIBRARIES, LOOKS
from kernels.words import Language

MARKER = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
OPENING = "<!-- table:"
HEADLINE = 4096
"""The length that the page's first table is of."""
TOKENS, WIDTH = 16384, 2048
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
"""The paper's sizes: batch x length, heads x head dim, and its lengths."""
NOTHING = "–"
SHARED = (
    *("shared_load_wavefronts", "shared_load_bank_conflicts"),
    *("shared_store_wavefronts", "shared_store_bank_conflicts"),
)
"""Counters of shared memory: trips, and those of them that a conflict made necessary."""
MIB = 1 << 20


@dataclass(frozen=True)
class Goal:
    """A share of a library's speed that a step must reach."""

    kernel: str
    of: str
    full: float
    causal: float


GOALS = (
    Goal("swizzle", "flash", 0.60, 0.60),
    Goal("pipelined", "flash", 0.90, 0.85),
    Goal("hopper", "flash", 1.50, 1.50),
    Goal("hopper", BETTER, 0.85, 0.80),
)


def fill(page: str, measured: Measured, say: Language) -> str:
    """The page with every table made anew.

    Raises:
        ValueError: a marker of a table that there is not, or one that is not ended.
    """
    found = MARKER.findall(page)
    if len(found) != page.count(OPENING):
        raise ValueError(f"{say.page}: {page.count(OPENING)} tables begin and {len(found)} end with <!-- end -->")

    def made(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in TABLES:
            raise ValueError(f"{say.page}: no table called {name!r}; there are {', '.join(TABLES)}")
        return f"{match[1]}\n{TABLES[name](measured, say)}\n\n{match[3]}"

    return MARKER.sub(made, page)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left and the rest to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def not_yet(say: Language) -> str:
    """What stands for a table without measurements."""
    return say("*Not measured yet.*")


def setup(measured: Measured, say: Language) -> str:
    """Card, driver, versions and clocks of the timings."""
    bench = measured.bench
    if bench is None:
        return not_yet(say)
    rows = [[say("card"), bench.card], [say("driver"), bench.driver]]
    rows += [[str(name), str(version)] for name, version in bench.versions.items()]
    clocks = bench.clocks if isinstance(bench.clocks, dict) else {}
    rows += [[say(CLOCKS.get(str(name), str(name))), f"{value}"] for name, value in clocks.items() if value is not None]
    return table([say("what"), say("value")], rows)


CLOCKS = {
    "max_sm": "processors' clock at most",
    "max_memory": "memory's clock at most",
    "power_limit": "power at most",
    "clocks.sm": "processors' clock, median, MHz",
    "power.draw": "power, median, W",
    "temperature.gpu": "temperature, median, °C",
}
"""Words for what `bench` tells of the card's clocks."""


def ladder(measured: Measured, say: Language) -> str:
    """TFLOP/s of every kernel at the headline's size, and its share of the libraries'."""
    return not_yet(say) if measured.bench is None else _ladder(measured.bench, say)


def other_cards(measured: Measured, say: Language) -> str:
    """The same on other cards, with what they were measured with."""
    parts = []
    for bench in measured.others:
        versions = ", ".join(f"{name} {version}" for name, version in bench.versions.items())
        parts.append(f"{bench.card}, {say('driver')} {bench.driver}, {versions}\n\n{_ladder(bench, say)}")
    return "\n\n".join(parts) or not_yet(say)


def _ladder(bench: Bench, say: Language) -> str:
    head = [say("kernel")]
    for mask in (say("not causal"), say("causal")):
        head += [f"{mask}: TFLOP/s", say("of FlashAttention-2"), say("of the better of cuDNN and FlashAttention-3")]
    rows = []
    for kernel in bench.kernels():
        row = [label(kernel, say)]
        for causal in (False, True):
            row.append(spread(bench.speed(kernel, HEADLINE, causal)))
            row += [percent(bench.share(kernel, of, HEADLINE, causal)) for of in ("flash", BETTER)]
        rows.append(row)
    return table(head, rows)


def goals(measured: Measured, say: Language) -> str:
    """What each step was to reach, and what it reached in each run."""
    bench = measured.bench
    if bench is None:
        return not_yet(say)
    rows = []
    for goal in GOALS:
        of = say("the better of cuDNN and FlashAttention-3") if goal.of == BETTER else LOOKS[goal.of].label
        for causal, wanted in ((False, goal.full), (True, goal.causal)):
            got = bench.share(goal.kernel, goal.of, HEADLINE, causal)
            verdict = NOTHING if got is None else say("yes") if got.median >= wanted else say("no")
            rows.append(
                [
                    label(goal.kernel, say),
                    say("causal") if causal else say("not causal"),
                    say("{share} of {library}", share=f"{wanted:.0%}", library=of),
                    percent(got),
                    NOTHING if got is None else f"{got.low:.1%} … {got.high:.1%} ({got.runs})",
                    verdict,
                ]
            )
    return table(
        [say("step"), say("mask"), say("goal"), say("reached"), say("lowest … highest (runs)"), say("enough")], rows
    )


def speeds(measured: Measured, say: Language, *, dtype: str = DTYPE, dim: int = DIM) -> str:
    """TFLOP/s by length, once without and once with a causal mask."""
    bench = measured.bench
    if bench is None:
        return not_yet(say)
    parts = []
    for causal in (False, True):
        head = [say("causal") if causal else say("not causal"), *(f"{length:,}" for length in bench.lengths())]
        rows = []
        for kernel in bench.kernels():
            found = [bench.speed(kernel, length, causal, dtype=dtype, dim=dim) for length in bench.lengths()]
            if any(found):
                rows.append([label(kernel, say), *map(spread, found)])
        parts.append(table(head, rows))
    return "\n\n".join(parts)


def all_speeds(measured: Measured, say: Language) -> str:
    """The same for every other number type and head dim that was measured."""
    bench = measured.bench
    if bench is None:
        return not_yet(say)
    kinds = sorted({(timing.dtype, timing.dim) for timing in bench.timings} - {(DTYPE, DIM)})
    return "\n\n".join(
        f"{say('{dtype}, head dim {dim}', dtype=dtype, dim=dim)}\n\n{speeds(measured, say, dtype=dtype, dim=dim)}"
        for dtype, dim in kinds
    ) or not_yet(say)


def correctness(measured: Measured, say: Language) -> str:
    """The worst error of each kernel, beside FlashAttention-2's on the same inputs."""
    if measured.cases is None:
        return not_yet(say)
    head = [say("kernel"), say("number"), say("inputs"), say("off"), say("largest error")]
    head += [say("largest relative error (L2)"), say("FlashAttention-2 on the same inputs")]
    rows = []
    for kernel in dict.fromkeys(case.kernel for case in measured.cases):
        for dtype in sorted({case.dtype for case in measured.cases}, reverse=True):
            cases = [case for case in measured.cases if (case.kernel, case.dtype) == (kernel, dtype)]
            if cases:
                beside = [case.library_rel_l2 for case in cases if case.library_rel_l2 is not None]
                rows.append(
                    [
                        label(kernel, say),
                        dtype,
                        f"{len(cases)}",
                        f"{sum(not case.ok for case in cases)}",
                        f"{max(case.max_abs for case in cases):.1e}",
                        f"{max(case.rel_l2 for case in cases):.1e}",
                        f"{max(beside):.1e}" if beside else NOTHING,
                    ]
                )
    return table(head, rows)


def tried(measured: Measured, say: Language) -> str:
    """What kinds of inputs were tried, and the worst error on each."""
    if measured.cases is None:
        return not_yet(say)
    ours = [case for case in measured.cases if case.kernel in NAMES]
    rows = []
    for kind in dict.fromkeys(case.kind for case in ours):
        cases = [case for case in ours if case.kind == kind]
        lengths = sorted({case.seqlen for case in cases})
        rows.append(
            [
                say(kind),
                f"{lengths[0]:,}" if len(lengths) == 1 else f"{lengths[0]:,} … {lengths[-1]:,}",
                f"{len({_input(case) for case in cases})}",
                *(
                    f"{max(worst):.1e}" if (worst := [c.rel_l2 for c in cases if c.dtype == dtype]) else NOTHING
                    for dtype in ("float16", "bfloat16")
                ),
            ]
        )
    return table(
        [
            say("inputs"),
            say("lengths"),
            say("shapes"),
            *(say("worst, {dtype}", dtype=d) for d in ("float16", "bfloat16")),
        ],
        rows,
    )


def _input(case: Case) -> tuple[object, ...]:
    return (case.dtype, case.dim, case.causal, case.batch, case.seqlen, case.heads, case.kv_heads)


def conflicts(measured: Measured, say: Language) -> str:
    """Trips to shared memory that one 8 x 8 read and one row's store take, worked out, and trips as counted."""
    rows = []
    for kernel, layout in (("tensor-cores", emulation.plain(DIM)), ("swizzle", emulation.swizzled(DIM))):
        read = emulation.trips(emulation.matrix_read(layout, 0, 0), emulation.CHUNK)
        store = emulation.trips(emulation.row_store(layout, 0, 0), emulation.CHUNK)
        found = measured.counted(kernel, HEADLINE)
        counted = [None if found is None else found.count(name) for name in SHARED]
        rows.append([label(kernel, say), f"{read}", f"{store}", *map(whole, counted)])
    head = [say("step"), say("trips of one 8 × 8 read"), say("trips of one row's store")]
    head += [say("read trips counted"), say("of them conflicts")]
    return table([*head, say("store trips counted"), say("of them conflicts")], rows)


def traffic(measured: Measured, say: Language) -> str:
    """Bytes through device memory of one sequence by length: worked out, and counted."""
    counted = [name for name in (*NAMES, *LIBRARIES) if any(row.kernel == name for row in measured.counters or ())]
    head = [say("length"), say("textbook, worked out"), say("least there can be"), *(label(n, say) for n in counted)]
    rows = []
    for length in LENGTHS:
        one = flops.square(1, WIDTH // DIM, length, DIM)
        row = [f"{length:,}", mib(flops.textbook_bytes(one)), mib(flops.tiled_bytes(one))]
        for name in counted:
            moved = measured.moved(name, length)
            row.append(mib(None if moved is None else moved / paper_shape(length).batch))
        rows.append(row)
    note = "" if counted else "\n\n" + say("*What the card counts is not measured yet.*")
    return table(head, rows) + note


def counters(measured: Measured, say: Language, *, causal: bool = False) -> str:
    """Nsight Compute's figures of each kernel at the headline's size."""
    rows = [
        [
            label(row.kernel, say),
            *busy(row, measured),
            share(row.count("occupancy_pct")),
            whole(row.count("registers")),
            waits(row),
        ]
        for row in measured.counters or ()
        if row.seqlen == HEADLINE and row.causal == causal
    ]
    if not rows:
        return not_yet(say)
    head = [say("causal") if causal else say("not causal"), *map(say, BUSY.values()), say("device memory")]
    return table([*head, say("occupancy"), say("registers"), say("warps wait most for")], rows)


BUSY = {
    "tensor_pipe_pct": "tensor pipe",
    "exp_unit_pct": "exp unit",
    "fma_pipe_pct": "fp32 pipe",
    "issue_slots_pct": "issue slots",
}
"""Counters that are a share of what a processor could do, and their heads."""


def busy(row: Counters, measured: Measured) -> list[str]:
    """How busy each part of the card was, that of device memory by its data sheet last; the busiest is bold."""
    shares = [row.count(name) for name in BUSY]
    card, milliseconds = card_of(measured.bench.card if measured.bench else ""), row.count("ms")
    speed = None
    if card is not None and milliseconds and row.dram_bytes is not None:
        speed = row.dram_bytes / (milliseconds * 1e-3) / (card.tbytes_a_s * 1e12) * 100
    shares.append(speed)
    most = max((value for value in shares if value is not None), default=None)
    return [f"**{share(value)}**" if value is not None and value == most else share(value) for value in shares]


def waits(row: Counters, most: int = 2) -> str:
    """The largest reasons for which warps waited, by their names in ncu: how many wait while one issues."""
    top = sorted(row.stalls.items(), key=lambda item: -item[1])[:most]
    return ", ".join(f"`{name}` {value:.1f}" for name, value in top) or NOTHING


def paper_shape(length: int, *, dim: int = DIM, causal: bool = False) -> flops.Shape:
    """The size that the paper measures at a length."""
    return flops.square(max(1, TOKENS // length), WIDTH // dim, length, dim, causal=causal)


def label(kernel: str, say: Language) -> str:
    """A kernel's name on the page."""
    return say(LOOKS[kernel].label) if kernel in LOOKS else kernel


def spread(found: Spread | None) -> str:
    """TFLOP/s, the median of runs."""
    return NOTHING if found is None else f"{found.median:.0f}" if found.median >= 20 else f"{found.median:.1f}"


def percent(found: Spread | None) -> str:
    """A share, the median of runs."""
    return NOTHING if found is None else f"{found.median:.1%}"


def share(value: float | None) -> str:
    """A share that was counted in percent."""
    return NOTHING if value is None else f"{value:.1f}%"


def whole(value: float | None) -> str:
    """A count."""
    return NOTHING if value is None else f"{value:,.0f}"


def mib(value: float | None) -> str:
    """Bytes in MiB."""
    return NOTHING if value is None else f"{value / MIB:,.0f} MiB"


TABLES: dict[str, Callable[[Measured, Language], str]] = {
    "setup": setup,
    "other-cards": other_cards,
    "ladder": ladder,
    "goals": goals,
    "speeds": speeds,
    "all-speeds": all_speeds,
    "correctness": correctness,
    "tried": tried,
    "conflicts": conflicts,
    "traffic": traffic,
    "counters": counters,
    "counters-causal": lambda measured, say: counters(measured, say, causal=True),
}
"""By the name in the marker."""
