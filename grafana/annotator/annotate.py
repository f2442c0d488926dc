"""Marks in Grafana the regions that it is told of: `python annotate.py URL`, the password in GRAFANA_PASSWORD.

It runs in an environment of its own (requirements.in says why), as a child of whoever drives a race. Each line of its
standard input is a region as JSON: `key`; `time` and `end`, ms since 1970 (`end` null while it lasts); `tags`; `text`.
A further line with the same key takes its place. Its standard output has one line at most: what went wrong first.
What Grafana did not take it is offered again with the next line, or some seconds later.

Grafana's side: https://grafana.com/docs/grafana/latest/developers/http_api/annotations/
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

USER = "admin"
REQUEST_LIMIT_S = 3.0
EXTEND_EVERY_S = 10.0
"""How often the end of a region that lasts is moved on."""
REFUSED_FOR_GOOD = (401, 403)
WARNING_LENGTH = 300


@dataclasses.dataclass
class Region:
    """A span of time to be marked, and what Grafana knows of it."""

    time: int
    end: int | None
    tags: list[str]
    text: str
    id: int | None = None
    told: dict[str, Any] | None = None

    def wanted(self, now: int) -> dict[str, Any]:
        """What Grafana is to know at a moment (ms since 1970); tags that are left out would be removed."""
        end = now if self.end is None else self.end
        return {"time_from": self.time, "time_to": max(end, self.time), "tags": self.tags, "text": self.text}


class GivenUp(Exception):
    """Grafana refuses whatever it is told."""


class Annotator:
    """Keeps Grafana's annotations in step with the regions.

    Args:
        annotations: how Grafana is told: `grafana_client`'s, of which `add_annotation` and `partial_update_annotation`
            are used.
        warn: is called once, with why it could not be told.
        clock: ms since 1970.
    """

    def __init__(
        self, annotations: Any, warn: Callable[[str], None], clock: Callable[[], int] = lambda: time.time_ns() // 10**6
    ) -> None:
        self._annotations, self._warn, self._clock = annotations, warn, clock
        self._regions: dict[str, Region] = {}
        self._warned = False

    def take(self, line: str) -> None:
        """Take in one line. Raises ValueError, KeyError or TypeError for one that is no region."""
        told = json.loads(line)
        key = told.pop("key")
        known = self._regions.get(key)
        self._regions[key] = dataclasses.replace(known, **told) if known else Region(**told)

    def end_all(self) -> None:
        """End the regions that still last: whoever told of them is gone."""
        for region in self._regions.values():
            region.end = self._clock() if region.end is None else region.end

    def tell(self) -> None:
        """Bring Grafana up to date, as far as it lets itself be. Raises GivenUp."""
        for key, region in list(self._regions.items()):
            wanted = region.wanted(self._clock())
            try:
                if region.id is None:
                    region.id = int(self._annotations.add_annotation(**wanted)["id"])
                elif wanted != region.told:
                    self._annotations.partial_update_annotation(region.id, **wanted)
            except Exception as error:  # the client lets through whatever its HTTP library raises
                self._warn_once(error)
                status = getattr(error, "status_code", 0)
                if status in REFUSED_FOR_GOOD:
                    raise GivenUp from None
                if status != 404:
                    return  # the others would fare no better now
                del self._regions[key]  # somebody removed it
                continue
            region.told = wanted
            if region.end is not None:
                del self._regions[key]

    def _warn_once(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            self._warn(" ".join(f"{type(error).__name__}: {error}".split())[:WARNING_LENGTH])


def read_lines(lines: queue.SimpleQueue[str | None]) -> None:
    """Pass on the lines of standard input, then None. In a thread: whoever writes them never waits for Grafana."""
    for line in sys.stdin:
        lines.put(line)
    lines.put(None)


def run(annotator: Annotator, lines: queue.SimpleQueue[str | None]) -> None:
    """Work until the lines end. Raises GivenUp."""
    while True:
        try:
            line = lines.get(timeout=EXTEND_EVERY_S)
            while line is not None:
                annotator.take(line)
                line = lines.get_nowait()
            annotator.end_all()
            annotator.tell()
            return
        except queue.Empty:
            annotator.tell()


def main() -> int:
    """Run; returns the exit code."""
    # Ctrl-C is for the race, which ends this program by closing its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)
    from grafana_client import GrafanaApi  # type: ignore[import-not-found]

    grafana = GrafanaApi.from_url(sys.argv[1], (USER, os.environ["GRAFANA_PASSWORD"]), timeout=REQUEST_LIMIT_S)
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    threading.Thread(target=read_lines, args=(lines,), daemon=True).start()
    try:
        run(Annotator(grafana.annotations, lambda text: print(text, flush=True)), lines)
    except GivenUp:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
