"""The page in a run's folder: what Prometheus has forgotten since is not written over."""

from __future__ import annotations

import re
from pathlib import Path

NAME = "dashboards.html"
COVERED = "bakeoff-covered"
"""Name of the page's own note of how much it shows: values times the seconds between them, whatever the step."""


def covered_by(path: Path) -> int:
    """How much an existing page shows; 0 where there is none, or none of ours."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = file.read(2000)
    except OSError:
        return 0
    found = re.search(rf'<meta name="{COVERED}" content="(\d+)">', head)
    return int(found[1]) if found else 0
