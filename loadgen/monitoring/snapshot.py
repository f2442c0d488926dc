"""What Prometheus told of a run, kept in its folder so that the report outlives Prometheus."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from loadgen.files import atomic_write, read_regular

MAX_BYTES = 256 << 20
Samples = list[tuple[float, float]]
"""(seconds since the Unix epoch, value), in order of time."""


def in_order(pairs: Iterable[Sequence[Any]]) -> Samples:
    """The finite ones of (moment, value) pairs. Raises ValueError or TypeError for what is no such pair."""
    samples = [(float(at), float(value)) for at, value in pairs]
    return sorted((at, value) for at, value in samples if math.isfinite(at) and math.isfinite(value))


def read_snapshot(path: Path, what: str) -> dict[str, Samples]:
    """The series of a snapshot's entry `what`, by name; empty where there is none that can be read."""
    try:
        found = json.loads(read_regular(path, MAX_BYTES))[what]
        return {name: in_order(pairs) for name, pairs in found.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def keep_snapshot(path: Path, metric: str, **content: object) -> None:
    """Write a snapshot; where that fails there is none, since the report itself does not depend on it."""
    document = {"schema_version": 1, "metric": metric, **content}
    with contextlib.suppress(OSError):
        atomic_write(path, json.dumps(document, separators=(",", ":")) + "\n")
