"""The events of one response, as they arrive, into its request record."""

from __future__ import annotations

from loadgen.record import RequestRecord, int64s, token_count
from loadgen.stream.event_frame import EventFrame
from loadgen.stream.sse import EventDecoder, SSESplitter, StreamEvent

MAX_FINISH_CHARS = 100


class EventReader:
    """Writes what a stream's events carry, and when each content event came, into `record`.

    `t_send`: monotonic ns, which offsets count from. `kernel`: arrival times are the kernel's, so read lags are known.
    `done`: the stream's end was marked. Call `close` in the end, whatever ended it.
    """

    def __init__(self, record: RequestRecord, t_send: int, *, kernel: bool, keep_text: bool) -> None:
        self.done = False
        self._record = record
        self._t_send = t_send
        self._kernel = kernel
        self._splitter = SSESplitter()
        self._decoder = EventDecoder(keep_text)
        self._offsets = record.event_offsets_ns
        self._lags = record.read_lags_ns
        self._texts: list[str] | None = [] if keep_text else None
        self._frame: EventFrame | None = None
        self._decoded = 0

    def feed(self, data: bytes, t: int, read_at: int) -> None:
        """Take body bytes that arrived at `t` and were read at `read_at`. Raises SSEError."""
        for payload in self._splitter.feed(data):
            self._take(payload, t, read_at)
        decoder = self._decoder
        if decoder.decoded != self._decoded:
            self._decoded = decoder.decoded
            self._frame = EventFrame(*decoder.frame) if decoder.frame is not None else None

    def skim(self, data: bytearray | bytes, size: int, t: int, read_at: int) -> int:
        """Take whole chunks off `data[:size]` that hold one content event each like earlier ones; bytes taken."""
        if self._frame is None or not self._splitter.between_events:
            return 0
        events, used = self._frame.match(data, size)
        if events == 1:
            self._offsets.append(t - self._t_send)
            if self._kernel:
                self._lags.append(read_at - t)
        elif events:
            self._offsets.extend(int64s((t - self._t_send,)) * events)
            if self._kernel:
                self._lags.extend(int64s((read_at - t,)) * events)
        return used

    def end(self, t: int, read_at: int) -> None:
        """The body has ended properly: an event that no blank line closed counts too."""
        rest = self._splitter.close()
        if rest is not None:
            self._take(rest, t, read_at)

    def close(self) -> None:
        """Complete the record with what the events add up to."""
        record, offsets = self._record, self._offsets
        record.events = len(offsets)
        if offsets:
            record.t_first, record.t_last = self._t_send + offsets[0], self._t_send + offsets[-1]
        if self._texts is not None:
            record.text = "".join(self._texts)

    def _take(self, payload: bytes, t: int, read_at: int) -> None:
        event = self._decoder.decode(payload)
        if event.content:
            self._offsets.append(t - self._t_send)
            if self._kernel:
                self._lags.append(read_at - t)
            if self._texts is not None and event.text:
                self._texts.append(event.text)
        if event.finish_reason is not None or event.usage is not None or event.error_kind is not None:
            self._keep(event)
        self.done = self.done or event.done

    def _keep(self, event: StreamEvent) -> None:
        """Keep what an event says beside text."""
        record = self._record
        if event.finish_reason is not None:
            record.finish_reason = event.finish_reason[:MAX_FINISH_CHARS]
        if event.usage is not None:
            prompt, completion = (
                token_count(event.usage, "prompt_tokens"),
                token_count(event.usage, "completion_tokens"),
            )
            if prompt is not None:
                record.prompt_tokens = prompt
            if completion is not None:
                record.output_tokens, record.token_source = completion, "usage"
        if event.error_kind is not None:
            record.fail(event.error_kind, event.error or "")
