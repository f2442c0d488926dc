"""The highest of many samples, told so that no scraper takes a peak from another."""

from __future__ import annotations

from collections import deque

REACH_S = 60.0
"""A peak older than this is forgotten even if nobody scraped."""


class PeakWindow:
    """Maximum of the samples since the previous scrape, and never of less than the last `window_s` seconds.

    A scrape resets nothing that is younger than the window: scrapers at intervals of up to `window_s` each see every
    peak, however many they are and whatever order they come in. A lone scraper sees every peak at any interval up to
    REACH_S. Times are monotonic seconds and never go back. Not thread-safe.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._previous = float("-inf")
        # Descending values: the first is the maximum, and a sample that a later one exceeds can never be it again.
        self._samples: deque[tuple[float, int]] = deque()

    def add(self, now: float, value: int) -> None:
        """Take in a sample."""
        self._forget(now)
        while self._samples and self._samples[-1][1] <= value:
            self._samples.pop()
        self._samples.append((now, value))

    def scrape(self, now: float) -> int | None:
        """Return the peak and remember the scrape; None when there was no sample."""
        self._forget(now)
        self._previous = now
        return self._samples[0][1] if self._samples else None

    def _forget(self, now: float) -> None:
        oldest = max(min(now - self._window_s, self._previous), now - REACH_S)
        while self._samples and self._samples[0][0] < oldest:
            self._samples.popleft()
