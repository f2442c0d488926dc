"""What was measured on a card: the JSON files of `check`, `bench` and `profile`, read and held to their form."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from kernels.style import LIBRARIES

FOLDER = Path(__file__).parent.parent / "docs" / "attention" / "data"
DTYPE, DIM = "float16", 128
"""What the page speaks of where it does not say otherwise."""
BETTER = "better"
"""Stands for the faster of cuDNN and FlashAttention-3 at each size."""


@dataclass(frozen=True)
class Timing:
    """One kernel at one size in one run."""

    run: int
    kernel: str
    dtype: str
    dim: int
    causal: bool
    seqlen: int
    batch: int
    heads: int
    ms_median: float
    tflops: float
    sm_clock_mhz: float | None = None


@dataclass(frozen=True)
class Case:
    """The error of one kernel on one input, and the library's own on the same."""

    kernel: str
    dtype: str
    dim: int
    causal: bool
    batch: int
    seqlen: int
    heads: int
    kv_heads: int
    kind: str
    max_abs: float
    rel_l2: float
    library_rel_l2: float | None = None
    """FlashAttention-2's."""
    ok: bool = True


@dataclass(frozen=True)
class Counters:
    """What Nsight Compute counted of one kernel at one size."""

    kernel: str
    seqlen: int
    causal: bool
    metrics: Mapping[str, Any]
    """By the names of `profile.COUNTERS`."""

    def count(self, metric: str) -> float | None:
        """One counter; None where it was not counted."""
        value = self.metrics.get(metric)
        return float(value) if isinstance(value, int | float) else None

    @property
    def dram_bytes(self) -> float | None:
        """Bytes read from device memory and written to it."""
        read, written = self.count("dram_read_bytes"), self.count("dram_write_bytes")
        return None if read is None or written is None else read + written

    @property
    def stalls(self) -> Mapping[str, float]:
        """Warps that wait while one issues, by what they wait for."""
        return dict(self.metrics.get("stalls") or {})


@dataclass(frozen=True)
class Spread:
    """A figure over runs."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: list[float]) -> Spread | None:
        """The median and the ends of some values; None of none."""
        return cls(statistics.median(values), min(values), max(values), len(values)) if values else None


@dataclass(frozen=True)
class Bench:
    """All timings and what they were taken on."""

    card: str
    driver: str
    versions: Mapping[str, Any]
    clocks: Any
    timings: tuple[Timing, ...]

    def by_run(self, kernel: str, seqlen: int, causal: bool, *, dtype: str = DTYPE, dim: int = DIM) -> dict[int, float]:
        """TFLOP/s in each run; `BETTER` takes the faster of cuDNN and FlashAttention-3 in each."""
        names = ("cudnn", "fa3") if kernel == BETTER else (kernel,)
        found: dict[int, float] = {}
        for timing in self.timings:
            if timing.kernel in names and (timing.seqlen, timing.causal, timing.dtype, timing.dim) == (
                seqlen,
                causal,
                dtype,
                dim,
            ):
                found[timing.run] = max(found.get(timing.run, 0.0), timing.tflops)
        return found

    def speed(self, kernel: str, seqlen: int, causal: bool, *, dtype: str = DTYPE, dim: int = DIM) -> Spread | None:
        """TFLOP/s over runs; None where it was not measured."""
        return Spread.of(list(self.by_run(kernel, seqlen, causal, dtype=dtype, dim=dim).values()))

    def share(self, kernel: str, of: str, seqlen: int, causal: bool) -> Spread | None:
        """TFLOP/s over those of another kernel in the same run; None where one of them was not measured."""
        ours, theirs = self.by_run(kernel, seqlen, causal), self.by_run(of, seqlen, causal)
        return Spread.of([ours[run] / theirs[run] for run in ours if run in theirs])

    def kernels(self) -> list[str]:
        """Names of all that was measured: the ladder's steps first, then libraries."""
        names = list(dict.fromkeys(timing.kernel for timing in self.timings))
        return sorted(names, key=lambda name: name in LIBRARIES)

    def lengths(self) -> list[int]:
        """Measured lengths, shortest first."""
        return sorted({timing.seqlen for timing in self.timings})


@dataclass(frozen=True)
class Measured:
    """What there is; None for what was not measured yet."""

    bench: Bench | None = None
    cases: tuple[Case, ...] | None = None
    counters: tuple[Counters, ...] | None = None
    others: tuple[Bench, ...] = ()
    """Timings on other cards."""

    def counted(self, kernel: str, seqlen: int, *, causal: bool = False) -> Counters | None:
        """The counters of one kernel at one size; None where it was not profiled."""
        rows = (row for row in self.counters or () if (row.kernel, row.seqlen, row.causal) == (kernel, seqlen, causal))
        return next(rows, None)

    def moved(self, kernel: str, seqlen: int) -> float | None:
        """Bytes through device memory without a mask; None where they were not counted."""
        found = self.counted(kernel, seqlen)
        return None if found is None else found.dram_bytes


def read(folder: Path = FOLDER) -> Measured:
    """Read the three files, and `bench-*.json` of other cards; one that is not there leaves its part None.

    Raises:
        ValueError: a file is not of the form that its tool writes; says which, where and what.
    """
    return Measured(
        _read(folder / "bench.json", _bench),
        _read(folder / "correctness.json", lambda data: tuple(_rows(data, "cases", Case, causal=False))),
        _read(folder / "profile.json", lambda data: tuple(_rows(data, "rows", Counters))),
        tuple(found for file in sorted(folder.glob("bench-*.json")) if (found := _read(file, _bench)) is not None),
    )


Made = TypeVar("Made")


def _read(file: Path, make: Callable[[Mapping[str, Any]], Made]) -> Made | None:
    if not file.is_file():
        return None
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise ValueError("it holds no JSON object")
        return make(data)
    except ValueError as error:
        raise ValueError(f"{file}: {error}; `make attention` on a machine with a GPU writes it anew") from error


def _bench(data: Mapping[str, Any]) -> Bench:
    timings = []
    for entry in _list(data, "runs"):
        if not isinstance(entry, dict) or "run" not in entry:
            raise ValueError("an entry of runs lacks 'run'")
        timings += [Timing(**row) for row in _fields(entry, "rows", Timing, {"run": entry["run"]})]
    return Bench(
        str(data.get("card", "?")),
        str(data.get("driver", "?")),
        dict(data.get("versions") or {}),
        data.get("clocks"),
        tuple(timings),
    )


def _rows(data: Mapping[str, Any], key: str, kind: Callable[..., Made], **left_out: Any) -> Iterator[Made]:
    """A row each; `left_out` is what stands for fields that the tool leaves out."""
    return (kind(**row) for row in _fields(data, key, kind, left_out))


def _fields(data: Mapping[str, Any], key: str, kind: Any, known: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The fields that `kind` has, of each row; a row may hold more. Raises ValueError for one that lacks some."""
    for number, entry in enumerate(_list(data, key), 1):
        row = {**known, **entry} if isinstance(entry, dict) else known
        lacking = [field.name for field in fields(kind) if field.name not in row and field.default is MISSING]
        if lacking:
            raise ValueError(f"row {number} of {key} lacks {', '.join(lacking)}")
        yield {field.name: row[field.name] for field in fields(kind) if field.name in row}


def _list(data: Mapping[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    if not isinstance(value, list):
        raise ValueError(f"{key!r} must be a list, not {type(value).__name__}")
    return value
