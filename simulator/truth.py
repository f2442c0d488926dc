"""The truth log: what was really read and written, and when, in ns of CLOCK_MONOTONIC.

One row a write: when it was due, the clock just before `send` was called and just after it had returned (so the bytes
became readable in between), what it carried and how many tokens. It also judges itself: a schedule that was missed
makes the log invalid as an oracle.
"""

from __future__ import annotations

import io
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from simulator.plan import BLOCKED, KIND_NAMES

VALID = "valid"
INVALID = "invalid: schedule missed"
SUFFIXES = (".npz", ".jsonl")
FULL = "invalid: truth log full"
LATE_SHARE = 0.01


@dataclass(slots=True, eq=False)
class RequestTruth:
    """One request. `id` is its X-Request-Id header, or "". Times are ns, -1 when it never came to that.

    `t_arrived` is the kernel's time stamp of the segment that completed the request, `t_read` when the simulator read
    it, `t_start` what the timing model counts from. `outcome`: ok, http (refused), fault (ended by one), aborted (the
    client went away) or open.
    """

    number: int
    id: str
    api: str
    peer_port: int
    t_accept: int
    t_arrived: int
    t_read: int
    t_start: int = -1
    t_head: int = -1
    t_end: int = -1
    prompt_tokens: int = 0
    output_tokens: int = 0
    tokens_written: int = 0
    http_status: int = 0
    outcome: str = "open"
    fault: str = ""


class TruthLog:
    """Rows in growing arrays (32 bytes a write), kept in memory until they are asked for."""

    def __init__(self, lag_limit_ns: int, max_rows: int) -> None:
        self.lag_limit_ns = lag_limit_ns
        self.max_rows = max_rows
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.requests: list[RequestTruth] = []
        self.due, self.before, self.after = array("q"), array("q"), array("q")
        self.request, self.tokens, self.kind = array("i"), array("i"), array("h")
        self.timed = 0
        self.late = 0
        self.dropped = 0

    def add(self, request: int, due: int, before: int, after: int, kind: int, tokens: int) -> None:
        """Log one write. Writes that the client's full buffer held back say nothing of our own lag."""
        if len(self.due) >= self.max_rows:
            self.dropped += 1
            return
        self.due.append(due)
        self.before.append(before)
        self.after.append(after)
        self.request.append(request)
        self.kind.append(kind)
        self.tokens.append(tokens)
        if not kind & BLOCKED:
            self.timed += 1
            if after - due > self.lag_limit_ns:
                self.late += 1

    def add_group(self, request: int, due: list[int], before: int, after: int, kind: int, tokens: list[int]) -> None:
        """Log writes of one kind that went out in one `send`; none of them was held back."""
        count = len(due)
        if len(self.due) + count > self.max_rows:
            self.dropped += count
            return
        self.due.extend(due)
        self.before += array("q", (before,)) * count
        self.after += array("q", (after,)) * count
        self.request += array("i", (request,)) * count
        self.kind += array("h", (kind,)) * count
        self.tokens.extend(tokens)
        self.timed += count
        latest = after - self.lag_limit_ns
        if due[0] < latest:
            self.late += count if due[-1] < latest else sum(at < latest for at in due)

    def verdict(self) -> str:
        """Return "valid", or why this log is no oracle: more than 1% of the writes came after the lag limit."""
        if self.dropped:
            return FULL
        return INVALID if self.late > LATE_SHARE * self.timed else VALID

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return all of it as arrays: `event_*` of one length, `request_*` of another; `event_request` is an index."""
        out: dict[str, npt.NDArray[Any]] = {
            f"event_{name}": np.array(getattr(self, name))
            for name in ("request", "due", "before", "after", "kind", "tokens")
        }
        for name in RequestTruth.__slots__:
            out[f"request_{name}"] = np.array([getattr(request, name) for request in self.requests])
        return out

    def summary(self) -> dict[str, Any]:
        """Return counts, the schedule's lag and the width of a write in ms, and the verdict."""
        kind = np.array(self.kind, dtype=np.int16)
        timed = (kind & BLOCKED) == 0
        due, before, after = (np.array(a, dtype=np.int64)[timed] for a in (self.due, self.before, self.after))
        read_lag = np.array([r.t_read - r.t_arrived for r in self.requests], dtype=np.int64)
        return {
            "verdict": self.verdict(),
            "lag_limit_ms": self.lag_limit_ns / 1e6,
            "requests": len(self.requests),
            "writes": len(kind),
            "late_writes": self.late,
            "writes_blocked_by_client": int(len(kind) - timed.sum()),
            "writes_not_logged": self.dropped,
            "lag_ms": _spread(after - due),
            "write_ms": _spread(after - before),
            "request_read_lag_ms": _spread(read_lag),
            "lag_p99_by_second_ms": _by_second(due, after - due),
        }

    def npz(self) -> bytes:
        """Return `arrays` and the summary (as JSON, `summary`) in NumPy's npz format."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = self.arrays()
        np.savez(buffer, summary=np.array(json.dumps(self.summary())), **arrays)
        return buffer.getvalue()

    def lines(self) -> Iterator[str]:
        """Yield JSON lines: the summary, then one line a request with its writes [due, before, after, kind, tokens]."""
        yield json.dumps({"summary": self.summary(), "kinds": {str(k): v for k, v in KIND_NAMES.items()}})
        writes: dict[int, list[list[int]]] = {}
        rows = zip(self.request, self.due, self.before, self.after, self.kind, self.tokens, strict=True)
        for request, *row in rows:
            writes.setdefault(request, []).append(row)
        for index, request_truth in enumerate(self.requests):
            record = {name: getattr(request_truth, name) for name in RequestTruth.__slots__}
            yield json.dumps({**record, "events": writes.get(index, [])})

    def save(self, path: Path) -> None:
        """Write the log to a `.npz` or `.jsonl` file. Raises OSError."""
        if path.suffix == ".npz":
            path.write_bytes(self.npz())
        else:
            path.write_text("".join(line + "\n" for line in self.lines()), encoding="utf-8")


def _spread(values: npt.NDArray[np.int64]) -> dict[str, float]:
    if not len(values):
        return {}
    p50, p99 = np.percentile(values, (50, 99)) / 1e6
    return {"p50": round(float(p50), 4), "p99": round(float(p99), 4), "max": round(float(values.max()) / 1e6, 4)}


def _by_second(due: npt.NDArray[np.int64], lag: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the median and the highest p99 of the seconds with 100 writes or more, in ms: noise comes in bursts."""
    if not len(due):
        return {}
    second = (due - due.min()) // 1_000_000_000
    order = np.argsort(second, kind="stable")
    parts = np.split(lag[order], np.flatnonzero(np.diff(second[order])) + 1)
    p99 = [float(np.percentile(part, 99)) / 1e6 for part in parts if len(part) >= 100]
    return {"median": round(float(np.median(p99)), 4), "max": round(max(p99), 4)} if p99 else {}
