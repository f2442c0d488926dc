"""What Prometheus told of a run, kept in its folder so that the report outlives Prometheus."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from loadgen.files import atomic_write


def read_snapshot(path: Path, what: str) -> dict[str, Any]:
    """The entry `what` of a snapshot, a mapping; empty where there is none that can be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))[what]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def keep_snapshot(path: Path, metric: str, **content: object) -> None:
    """Write a snapshot; where that fails there is none, since the report itself does not depend on it."""
    document = {"schema_version": 1, "metric": metric, **content}
    with contextlib.suppress(OSError):
        atomic_write(path, json.dumps(document, separators=(",", ":")) + "\n")
