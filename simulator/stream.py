"""One stream being written: fired by the loop at each due time, it writes, stamps and logs."""

from __future__ import annotations

import time
from bisect import bisect_right
from socket import socket
from typing import TYPE_CHECKING, Protocol

from simulator.plan import BLOCKED, CLOSE, CONTENT, DONE, END, FAULTED, NEVER, RESET, FaultedWrites
from simulator.truth import RequestTruth, TruthLog
from simulator.wire import LAST_CHUNK, Writer

if TYPE_CHECKING:
    from simulator.batching import Sequence, Step
    from simulator.config import Fault

ACTIONS = RESET | CLOSE | END


class Client(Protocol):
    """Whom a stream is written to: what the socket does not take waits in `out`."""

    sock: socket
    fd: int
    out: bytearray
    close_when_sent: bool

    def write(self, data: bytes) -> bool:
        """Send or queue. True: all was taken. Raises OSError: the client went away."""

    def close(self, *, reset: bool = False) -> None:
        """Close at once; `reset` sends RST in place of FIN."""


class Observer(Protocol):
    """What an engine's own metrics are fed with; times in ns."""

    def first(self, ttft: int, prompt_tokens: int, tokens: int) -> None:
        """Observe a first content event."""

    def gap(self, ns: int, tokens: int, events: int) -> None:
        """Observe `events` further content events, together `tokens`: the first after `ns`, the others at once."""

    def finished(self, truth: RequestTruth, t_first: int, t_last: int, queued: int, reason: str) -> None:
        """Observe a request's end. `reason`: stop, length or abort."""

    def step(self, step: Step, running: int, waiting: int, swapped: int) -> None:
        """Observe one step of the batching model."""


class Stream:
    """Three lists of writes and a cursor. `fire` writes what is due; more may be put in while it runs (batching)."""

    __slots__ = (
        "_blocked", "_coalesce", "_index", "_log", "_made", "_observer", "_slow", "_whole", "armed", "client", "cursor",
        "due", "ended", "fault", "kind", "last", "over", "prefix", "sequence", "t_first", "t_last", "tokens", "truth",
        "waiting_tokens", "writer", "writes",
    )  # fmt: skip

    def __init__(
        self, client: Client, writer: Writer, truth: RequestTruth, log: TruthLog, observer: Observer, *,
        coalesce: int, fault: Fault | None, whole: bool,
    ) -> None:  # fmt: skip
        """`whole`: not streamed; the last write carries a complete response whose head is `prefix`."""
        self.client = client
        self.writer = writer
        self.truth = truth
        self.fault = fault
        self.writes = FaultedWrites(fault)
        self.prefix = b""
        self.due: list[int] = []
        self.kind: list[int] = []
        self.tokens: list[int] = []
        self.cursor = 0
        self.armed = False
        self.over = False
        self.ended = ""
        self.t_first = self.t_last = 0
        self.sequence: Sequence | None = None
        self.waiting_tokens = 0
        self.last = 0
        self._made = 0
        self._index = len(log.requests) - 1
        self._log = log
        self._observer = observer
        self._slow = fault if fault is not None and fault.kind == "slow" else None
        self._coalesce = coalesce if self._slow is None else 1
        self._whole = whole
        self._blocked: list[tuple[int, int, int, int]] = []

    def put(self, due: int, kind: int, tokens: int) -> None:
        """Add one write, through the stream's fault."""
        for new_due, new_kind, new_tokens in self.writes.put(due, kind, tokens):
            # A token may be ready before one that a spike or the emitter held back: order is kept.
            self.last = max(self.last, new_due)
            self.due.append(self.last)
            self.kind.append(new_kind)
            self.tokens.append(new_tokens)

    def next_due(self) -> int:
        """Return when the next write is due, or 0: nothing more to do for now."""
        if self.over or self.cursor >= len(self.due):
            return 0
        due = self.due[self.cursor]
        return 0 if due >= NEVER else due

    def fire(self, now: int) -> int:
        """Write what is due at the cursor. Returns the next due time, or 0. `over` says that the stream has ended."""
        if self._slow is not None and self.client.out and not self.over:
            return self._go_on_trickling(self._slow)
        if self.over:
            return 0
        cursor = self.cursor
        kind = self.kind[cursor]
        try:
            if kind & ACTIONS:
                self._act(kind)
            elif self._whole:
                self._write_whole(now)
            elif kind & ~FAULTED == CONTENT and self._coalesce > 1:
                self._write_group(cursor, now)
            else:
                self._write_one(cursor, kind, now)
        except OSError:
            self.end("aborted")
            return 0
        if self._slow is not None and self.client.out:
            return now + round(self._slow.gap_ms * 1e6)
        if self.cursor >= len(self.due):
            self._maybe_done()
        return self.next_due()

    def _write_one(self, cursor: int, kind: int, now: int) -> None:
        client = self.client
        tokens = self.tokens[cursor]
        if kind & ~FAULTED == CONTENT:
            data = self.writer.contents(self._made, [tokens])
        else:
            data = self.writer.special(kind, tokens, self._made)
        if self.prefix:
            data, self.prefix = self.prefix + data, b""
        self.cursor = cursor + 1
        self._made += tokens
        due = self.due[cursor]
        if self._slow is not None:
            client.out += data
            self._blocked.append((due, time.monotonic_ns(), kind | FAULTED | BLOCKED, tokens))
            self._trickle(self._slow)
            return
        before = time.monotonic_ns()
        if client.write(data):
            self._log.add(self._index, due, before, time.monotonic_ns(), kind, tokens)
        else:
            self._blocked.append((due, before, kind | BLOCKED, tokens))
        if kind & CONTENT:
            self._observe(before, tokens, 1)

    def _write_group(self, cursor: int, now: int) -> None:
        """Write all content events that are due, at most `coalesce`, in one send."""
        most = min(len(self.due), cursor + self._coalesce)
        end = max(cursor + 1, bisect_right(self.due, now, cursor, most))
        plain = self.kind[cursor:end]
        while end > cursor + 1 and plain.count(CONTENT) < end - cursor:
            end -= 1
            plain.pop()
        groups = self.tokens[cursor:end]
        data = self.writer.contents(self._made, groups)
        if self.prefix:
            data, self.prefix = self.prefix + data, b""
        self.cursor = end
        total = sum(groups)
        self._made += total
        due, kind = self.due[cursor:end], self.kind[cursor]
        before = time.monotonic_ns()
        if self.client.write(data):
            self._log.add_group(self._index, due, before, time.monotonic_ns(), kind, groups)
        else:
            rows = zip(due, plain, groups, strict=True)
            self._blocked.extend((at, before, flags | BLOCKED, tokens) for at, flags, tokens in rows)
        self._observe(before, total, end - cursor)

    def _write_whole(self, now: int) -> None:
        """Count tokens as they are made; with the last write, send the complete response."""
        tokens = self.tokens[self.cursor]
        due = self.due[self.cursor]
        self.cursor += 1
        self._made += tokens
        if tokens:
            self._observe(now, tokens, 1)
        if self.kind[self.cursor - 1] & DONE:
            body = self.writer.whole(self._made)
            data = self.prefix + f"content-length: {len(body)}\r\n\r\n".encode() + body
            before = time.monotonic_ns()
            if self.client.write(data):
                kinds = CONTENT | self.kind[self.cursor - 1]
                self._log.add(self._index, due, before, time.monotonic_ns(), kinds, self._made)
            else:
                self._blocked.append((due, before, CONTENT | BLOCKED, self._made))

    def _observe(self, at: int, tokens: int, events: int) -> None:
        if self.t_first:
            self._observer.gap(at - self.t_last, tokens, events)
        else:
            self.t_first = at
            self._observer.first(at - self.truth.t_arrived, self.truth.prompt_tokens, tokens)
            if events > 1:
                self._observer.gap(0, 0, events - 1)
        self.t_last = at

    def _trickle(self, fault: Fault) -> None:
        """Send a few bytes of what waits (fault `slow`). Raises OSError: the client went away."""
        client = self.client
        try:
            sent = client.sock.send(client.out[: fault.bytes])
        except BlockingIOError:
            sent = 0
        del client.out[:sent]
        if not client.out:
            self.drained()

    def _go_on_trickling(self, fault: Fault) -> int:
        try:
            self._trickle(fault)
        except OSError:
            self.end("aborted")
            return 0
        if self.client.out:
            return time.monotonic_ns() + round(fault.gap_ms * 1e6)
        return self.next_due()

    def _act(self, kind: int) -> None:
        # First, so that `t_end` is before all that the client may see of it.
        self.end("fault")
        if kind == RESET:
            self.client.close(reset=True)
        elif kind == CLOSE:
            self.client.close_when_sent = True
        else:
            self.client.write(LAST_CHUNK)

    def drained(self) -> None:
        """Log writes that had to wait: the client has room again and all bytes are with the kernel."""
        now = time.monotonic_ns()
        for due, before, kind, tokens in self._blocked:
            self._log.add(self._index, due, before, now, kind, tokens)
            if kind & FAULTED and kind & CONTENT:
                self._observe(now, tokens, 1)
        self._blocked.clear()
        if self.cursor >= len(self.due):
            self._maybe_done()

    def _maybe_done(self) -> None:
        """End when the write that was made last closes the stream and all is with the kernel."""
        if not self._blocked and self.kind and self.kind[-1] & DONE:
            self.end("ok")

    def end(self, outcome: str) -> None:
        """End the stream: ok, fault or aborted."""
        if self.over:
            return
        self.over = True
        truth = self.truth
        truth.outcome = self.ended = outcome
        truth.t_end = time.monotonic_ns()
        truth.tokens_written = self._made
        if self.sequence is not None:
            self.sequence.gone = True

    def account(self) -> None:
        """Tell the engine's metrics of the end, when there is time."""
        truth, sequence = self.truth, self.sequence
        queued = max(0, sequence.admitted - truth.t_read) if sequence is not None else 0
        reason = self.writer.reason if self.ended == "ok" else "abort"
        self._observer.finished(truth, self.t_first, self.t_last, queued, reason)
