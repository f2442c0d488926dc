"""The events of one response, as they arrive, into its request record."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from loadgen.record import ErrorKind, RequestRecord, int64s, token_count, whole_text
from loadgen.stream.event_frame import EventFrame
from loadgen.stream.sse import EventDecoder, SSEError, SSESplitter
from loadgen.stream.stream_event import CONTENT, EMPTY, StreamEvent, classify, finish_failure, json_of

MAX_FINISH_CHARS = 100
MAX_EVENTS = 1_000_000
"""Content events of one answer: no real one has so many, and each costs memory."""
HEAD_BYTES = 2000
"""How much is kept of a body in which no event was found, and of the first events' text."""
FAILURES = {
    ErrorKind.FINISH_ABORT: "the server aborted the answer (finish_reason {reason})",
    ErrorKind.FINISH_ERROR: "the server ended the answer with an error (finish_reason {reason})",
    ErrorKind.CONTENT_FILTER: "a content filter ended the answer (finish_reason {reason})",
}


class EventReader:
    """Writes what a stream's events carry, and when each content event came, into `record`.

    `t_send`: monotonic ns, which offsets count from. `kernel`: arrival times are the kernel's, so read lags are known.
    `reasoning_end`: text that ends the reasoning inside an answer's text, where there is such a tag; it needs
    `keep_text`. `done`: the stream's end was marked; what comes behind it is not read. Call `close` in the end,
    whatever ended it.
    """

    def __init__(
        self, record: RequestRecord, t_send: int, *, kernel: bool, keep_text: bool, reasoning_end: str | None = None
    ) -> None:
        self.done = False
        self.total_tokens: int | None = None
        """Prompt and output together, as the server tells."""
        self.reasoning_tokens: int | None = None
        self.first_counts: list[int] = []
        """Tokens so far, as the server tells in each event of the first arrival."""
        self.first_text = ""
        """Of the first content event."""
        self.texts: list[str] | None = None
        """Text of each content event, where it is kept, once the reader is closed."""
        self.zero_usage = False
        """The server counted no output token."""
        self.answer_at: int | None = None
        """Number of the first content event that holds more than reasoning."""
        self.parsed = False
        """The answer began with reasoning, which the server told apart: what marked it may have been left out."""
        self._record = record
        self._t_send = t_send
        self._kernel = kernel
        self._splitter = SSESplitter()
        self._decoder = EventDecoder()
        self._offsets = record.event_offsets_ns
        self._lags = record.read_lags_ns
        self._texts: list[str | bytes] | None = [] if keep_text else None  # bytes: still a string of JSON
        self._reasoning_end = reasoning_end
        self._frame: EventFrame | None = None
        self._ready: EventFrame | None = None  # the same, between events
        self._decoded = 0
        self._heard = t_send
        self._head = bytearray()

    def feed(self, data: bytes, t: int, read_at: int) -> None:
        """Take body bytes that arrived at `t` and were read at `read_at`. Raises SSEError."""
        if self._ready is not None and (text := self._ready.text_of(data)) is not None:
            self._offsets.append(t - self._t_send)
            if self._kernel:
                self._lags.append(read_at - t)
            if self._texts is not None:
                self._texts.append(text)
            return
        if self.done:
            return
        if len(self._offsets) > MAX_EVENTS:
            raise SSEError(f"the answer has more than {MAX_EVENTS} content events")
        decoder = self._decoder
        if not decoder.decoded and len(self._head) < HEAD_BYTES:
            self._head += data[:HEAD_BYTES]
        for payload in self._splitter.feed(data):
            event = decoder.decode(payload)
            if event is CONTENT:
                self._offsets.append(t - self._t_send)
                if self._kernel:
                    self._lags.append(read_at - t)
                if self._texts is not None:
                    self._texts.append(decoder.text_inside(payload))
            elif self._take(event, t, read_at):
                return
        if decoder.decoded != self._decoded:
            self._decoded = decoder.decoded
            self._frame = EventFrame(*decoder.frame) if decoder.frame is not None else None
        self._ready = self._frame if self._splitter.between_events else None

    def skim(self, data: bytearray | bytes, size: int, t: int, read_at: int) -> int:
        """Take whole chunks off `data[:size]` that hold one content event each like earlier ones; bytes taken.

        Their text is lost, so this is not for a reader that keeps it.
        """
        if self._ready is None:
            return 0
        used = self._ready.end_of_one(data, 0, size)
        if used:
            self._offsets.append(t - self._t_send)
            if self._kernel:
                self._lags.append(read_at - t)
            if used < size:
                events, used = self._ready.match(data, size, used)
                self._offsets.extend(int64s((t - self._t_send,)) * events)
                if self._kernel:
                    self._lags.extend(int64s((read_at - t,)) * events)
        return used

    def end(self, t: int, read_at: int) -> None:
        """The body has ended properly: an event that no blank line closed counts too."""
        rest = self._splitter.close()
        if rest is not None and not self.done:
            self._take(classify(rest), t, read_at)

    def close(self) -> None:
        """Complete the record with what the events add up to."""
        record, offsets = self._record, self._offsets
        record.events = len(offsets)
        if offsets:
            record.t_first, record.t_last = self._t_send + offsets[0], self._t_send + offsets[-1]
        if self._texts is not None:
            self.texts = texts_of(self._texts)
            record.text = whole_text("".join(self.texts))
            if self._reasoning_end is not None:
                self.answer_at = _first_behind(self._reasoning_end, self.texts)
        if self.answer_at is not None:
            record.t_answer = self._t_send + offsets[self.answer_at]

    def heard(self) -> int:
        """When the last event that said something came, monotonic ns; comments and empty events say nothing.

        To be asked now and then: this is also where an answer that never ends is noticed.
        """
        offsets = self._offsets
        if len(offsets) > MAX_EVENTS:
            self._ready = None  # so that the next bytes are looked at
        return max(self._heard, self._t_send + offsets[-1]) if offsets else self._heard

    @property
    def stray(self) -> str:
        """What came beside events, where that may say what went wrong: the body without any, or a line of JSON."""
        found = bytes(self._head) if not self._decoder.decoded else self._splitter.stray
        return found.decode("utf-8", "replace").strip().removeprefix("error:").strip()

    def _take(self, event: StreamEvent, t: int, read_at: int) -> bool:
        """Take an event that was decoded; returns whether it is the stream's end."""
        if event is EMPTY:
            return False
        if event.content:
            offsets = self._offsets
            offsets.append(t - self._t_send)
            if self._kernel:
                self._lags.append(read_at - t)
            if len(offsets) == 1:
                self.first_text, self.parsed = (event.text or "")[:HEAD_BYTES], not event.answer
            if event.answer and self.answer_at is None:
                self.answer_at = len(offsets) - 1
            if self._texts is not None:
                self._texts.append(event.text or "")
        self._heard = t
        self._keep(event)
        return event.done

    def _keep(self, event: StreamEvent) -> None:
        """Keep what an event says beside text."""
        record = self._record
        if event.done:
            self.done, self._ready = True, None
        if event.usage is not None:
            self._keep_usage(event.usage, event.content)
        if event.error_kind is not None:
            record.fail(event.error_kind, event.error or "")
        if event.finish_reason is not None:
            reason = record.finish_reason = event.finish_reason[:MAX_FINISH_CHARS]
            kind = finish_failure(reason)
            if kind is not None:
                record.fail(kind, FAILURES[kind].format(reason=reason))

    def _keep_usage(self, usage: dict[str, Any], content: bool) -> None:
        record = self._record
        prompt = token_count(usage, "prompt_tokens") or token_count(usage, "input_tokens")
        completion = _first_count(usage, "completion_tokens", "output_tokens")
        if prompt:
            record.prompt_tokens = prompt
        if completion:
            record.output_tokens, record.token_source = completion, "usage"
            if content and self._offsets[-1] == self._offsets[0]:
                self.first_counts.append(completion)
        self.zero_usage = completion == 0 or (self.zero_usage and not completion)
        self.total_tokens = token_count(usage, "total_tokens")
        details = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
        reasoning = _first_count(details, "reasoning_tokens")
        self.reasoning_tokens = token_count(usage, "reasoning_tokens") if reasoning is None else reasoning


def _first_count(usage: Any, *keys: str) -> int | None:
    return next((found for key in keys if (found := token_count(usage, key)) is not None), None)


def texts_of(texts: Sequence[str | bytes]) -> list[str]:
    """Text of each event, of which some are still the inside of a string of JSON; such are decoded all at once."""
    inside = [text for text in texts if isinstance(text, bytes)]
    decoded = iter(json_of(b'["' + b'","'.join(inside) + b'"]')) if inside else iter(())
    return [text if isinstance(text, str) else next(decoded) for text in texts]


def _first_behind(tag: str, texts: Sequence[str]) -> int | None:
    """Number of the first event with more than blanks behind `tag`."""
    before, _, answer = "".join(texts).partition(tag)
    at = len(before) + len(tag) + len(answer) - len(answer.lstrip())
    ends = enumerate(itertools.accumulate(map(len, texts)))
    return next((number for number, end in ends if end > at), None) if answer.strip() else None
