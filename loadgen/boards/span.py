"""The time range of a page, and the moments at which its queries are evaluated."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
import time

from loadgen.errors import UserError
from loadgen.monitoring.prometheus import duration_seconds
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import load_manifest

POINTS = 1000
"""At most so many a series: one a pixel."""
STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
MARGIN_S = 5.0
MARGIN_SHARE = 0.02


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """A time range and its steps, seconds since the Unix epoch."""

    start: float
    end: float
    step: float
    scrape_interval: float = 1.0

    @property
    def count(self) -> int:
        """How many moments there are: start, start + step, ..., none after end."""
        return math.floor((self.end - self.start) / self.step + 1e-9) + 1

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start

    def index(self, at: float) -> int | None:
        """Which of the moments a time is; None for none of them."""
        place = round((at - self.start) / self.step)
        near = abs(self.start + place * self.step - at) < min(0.01, self.step / 4)
        return place if near and 0 <= place < self.count else None


def make_span(start: float, end: float, scrape_interval: float) -> Span:
    """Choose the step: not below the scrape interval, and at most 1,000 points; aligned to whole steps.

    Raises UserError for a range that does not go forward.
    """
    if not end > start:
        raise UserError(f"The time range ends ({moment_text(end)}) before it begins ({moment_text(start)}).")
    least = max(scrape_interval, (end - start) / (POINTS - 2))  # aligning adds up to one, and so does the first
    step = next((float(step) for step in STEPS if step >= least), math.ceil(least / 86400) * 86400.0)
    first = math.floor(start / step) * step
    return Span(first, first + math.floor((end - first) / step) * step, step, scrape_interval)


def run_range(folder: RunFolder, now: float | None = None) -> tuple[float, float]:
    """A run's time range with a little margin, seconds since the Unix epoch.

    A run without an end is still running, or was killed: its last request tells how far it came.
    Raises UserError when the manifest cannot be read, or before the first block.
    """
    manifest = load_manifest(folder.manifest_path)
    start, end = manifest.span()
    if end == start:
        raise UserError(f"{folder.path}: nothing of this run was measured yet, so there is no time to show.")
    if manifest.ended_at is None and folder.records_path.exists():
        end = max(end, folder.records_path.stat().st_mtime)
    margin = max(MARGIN_S, MARGIN_SHARE * (end - start))
    return start - margin, min(end + margin, max(end, time.time() if now is None else now))


def parse_moment(text: str, now: float) -> float:
    """A moment of the command line: seconds since the Unix epoch, an ISO date and time (UTC without a zone), or `now`.

    Raises UserError for anything else.
    """
    if text == "now":
        return now
    if re.fullmatch(r"\d{9,11}(\.\d+)?", text):
        return float(text)
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"{text!r} is not a time: give an ISO date and time such as 2026-11-22T14:05:00 (UTC), "
            "seconds since 1970, or now."
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp()


def parse_duration(text: str) -> float:
    """A length of time such as `30m` or `1h30m`, in seconds. Raises UserError for anything else."""
    seconds = duration_seconds(text)
    if not seconds:
        raise UserError(f"{text!r} is not a length of time: give one such as 90s, 30m or 2h.")
    return seconds


def moment_text(seconds: float) -> str:
    """A moment in UTC, without a unit."""
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S}"
