"""What was read of an engine's metrics while its blocks ran, kept beside the records: one line a block."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadgen.files import open_regular
from loadgen.message import as_data, of_data
from loadgen.monitoring.engine_page import LARGEST, Reading

SAMPLES_FILE = "engine_figures.jsonl"
SCHEMA_VERSION = 1
MAX_BYTES, MAX_LINE = 512 << 20, 16 << 20
MAX_ROWS, MAX_NAMES = 20_000, 500


@dataclasses.dataclass(frozen=True, slots=True)
class BlockSamples:
    """The readings of one block, in order of time."""

    block: str
    """Its record id."""
    rows: Sequence[tuple[float, Reading]]
    """Seconds since the Unix epoch, and what one page said then."""
    problem: str | None = None
    """Why the engine's own page could not be read, in words; None where it could."""

    def points(self, name: str) -> list[tuple[float, float]]:
        """(moment, value) of one name."""
        return [(at, reading[name]) for at, reading in self.rows if name in reading]

    @property
    def names(self) -> set[str]:
        """All names that were read."""
        return {name for _, reading in self.rows for name in reading}


def append_samples(path: Path, samples: BlockSamples) -> None:
    """Add a block. Raises OSError. A line that a crash has torn is left behind, and the next is whole."""
    names = sorted(samples.names)
    line = {
        "schema_version": SCHEMA_VERSION,
        "block": samples.block,
        "problem": None if samples.problem is None else as_data(samples.problem),
        "names": names,
        "rows": [[round(at, 4), *(reading.get(name) for name in names)] for at, reading in samples.rows],
    }
    data = (json.dumps(line, separators=(",", ":"), allow_nan=False) + "\n").encode()
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            data = data if file.read(1) == b"\n" else b"\n" + data
        file.write(data)


def read_samples(path: Path) -> dict[str, BlockSamples]:
    """All blocks by record id; empty where there is no such file. What cannot be read is passed over."""
    found: dict[str, BlockSamples] = {}
    try:
        with open_regular(path, MAX_BYTES) as file:
            while line := file.readline(MAX_LINE):
                samples = _read(line)
                if samples is not None:
                    found[samples.block] = samples
    except OSError:
        return found
    return found


def _read(line: bytes) -> BlockSamples | None:
    try:
        data = json.loads(line)
        names = [str(name) for name in data["names"][:MAX_NAMES]]
        rows = [_row(names, row) for row in data["rows"][:MAX_ROWS]]
        problem = None if data.get("problem") is None else str(of_data(data["problem"]))
        return BlockSamples(str(data["block"]), sorted(rows, key=lambda row: row[0]), problem)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _row(names: Sequence[str], row: Sequence[Any]) -> tuple[float, Reading]:
    at = float(row[0])
    if not 0 <= at <= 4e9:
        raise ValueError("no moment")
    values: Mapping[str, Any] = dict(zip(names, row[1:], strict=True))
    return at, {name: float(value) for name, value in values.items() if _may_be(value)}


def _may_be(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) <= LARGEST
