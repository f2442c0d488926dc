"""A process's own peak of memory."""

from __future__ import annotations

import re
from pathlib import Path


def peak_mb(pid: int | str = "self") -> float:
    """Of a running process. getrusage's would be that of the process it was forked from, if larger."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found  # noqa: S101
    return int(found[1]) / 1024
