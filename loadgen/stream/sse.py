"""Server-sent events of an OpenAI-compatible stream: bytes in, events out. Pure, no input or output.

Two layers, each usable alone:

- `SSESplitter` cuts a byte stream into event payloads as the WHATWG HTML standard's "Interpreting an event
  stream" (section 9.2.6) says, wherever the reads happen to be split.
- `EventDecoder` tells what a payload is: generated text, a finish, usage, an error, the end. Most events of a
  stream differ from each other only in their text, so it learns the bytes around the text from one event
  that it decoded in full, and recognises the ones that follow without decoding JSON.
"""

from __future__ import annotations

import math
import re

from loadgen.stream.stream_event import CONTENT, NamedPayload, StreamEvent, classify, json_of

MAX_EVENT_BYTES = 16 * 1024 * 1024
MAX_STRAY_BYTES = 2000

BOM = b"\xef\xbb\xbf"


class SSEError(Exception):
    """The byte stream cannot be an event stream that we are willing to hold in memory."""


class SSESplitter:
    r"""Cuts one response body into event payloads.

    Lines may end in LF, CRLF, CR or any mix; a leading byte order mark, comments and the fields `id` and
    `retry` are dropped; several `data` lines are joined with "\n"; an event without a `data` line is none.
    One instance serves one response. Raises `SSEError` when an event is larger than `max_event_bytes`.
    """

    __slots__ = ("_after_cr", "_at_start", "_held", "_max", "stray")

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max = max_event_bytes
        self.stray = b""
        """The last block without data that may hold JSON: servers report errors so, though no standard knows it."""
        self._held = bytearray()  # the incomplete event, its line ends already LF
        self._at_start = True  # a byte order mark may still come
        self._after_cr = False  # the last byte was CR: an LF right behind it belongs to it

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the payloads of the events that are now complete, in order."""
        # The common form, whole events of one `data: ` line each: then every LF belongs to a blank line.
        size = len(data)
        if (
            data.startswith(b"data: ")
            and data.endswith(b"\n\n")
            and not self._held
            and b"\r" not in data
            and size <= self._max
        ):
            if data.find(b"\n") == size - 2:  # one event
                self._at_start = self._after_cr = False
                return [data[6:-2]]
            payloads = data[6:-2].split(b"\n\ndata: ")
            if data.count(b"\n") == 2 * len(payloads):
                self._at_start = self._after_cr = False
                return payloads
        return self._feed_any(data)

    def _feed_any(self, data: bytes) -> list[bytes]:
        if self._at_start:
            data = bytes(self._held) + data
            self._held.clear()
            if len(data) < len(BOM) and BOM.startswith(data):
                self._held += data
                return []
            self._at_start = False
            data = data.removeprefix(BOM)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

        held = self._held
        if held:
            searched = len(held) - 1
            held += data
            if held.find(b"\n\n", searched) < 0:
                self._check_held()
                return []
            data = bytes(held)
            held.clear()
        blocks = data.split(b"\n\n")
        held += blocks.pop()
        self._check_held()
        check_size = len(data) > self._max
        payloads = []
        for block in blocks:
            if check_size and len(block) > self._max:
                raise self._too_large()
            payload = block[6:] if block[:6] == b"data: " and b"\n" not in block else _payload_of(block)
            if payload is not None:
                payloads.append(payload)
            elif b"{" in block:
                self.stray = block[:MAX_STRAY_BYTES]
        return payloads

    @property
    def between_events(self) -> bool:
        """Whether nothing is held back: the bytes so far end with a whole event."""
        return not (self._held or self._after_cr)

    def close(self) -> bytes | None:
        """The body ended: return the payload of a last event that no blank line closed, if it has data.

        The standard would drop such an event. Some servers end so after `[DONE]`, and what was generated was
        generated. Call this only after a body that ended properly: after a cut the payload may be half of one.
        """
        held = bytes(self._held).removesuffix(b"\n")
        self._held.clear()
        payload = _payload_of(held)
        if payload is None and b"{" in held:
            self.stray = held[:MAX_STRAY_BYTES]
        return payload

    def _check_held(self) -> None:
        # One byte of grace: a trailing LF may turn out to be half of the blank line.
        if len(self._held) > self._max + 1:
            raise self._too_large()

    def _too_large(self) -> SSEError:
        return SSEError(f"a server-sent event is larger than {self._max} bytes")


def _payload_of(block: bytes) -> bytes | None:
    """Return the payload of an event's lines (separated by LF), or None where no line is `data`."""
    data: list[bytes] = []
    name = b""
    for line in block.split(b"\n"):
        if not line:  # at most the block's first line: the blank line of an event without data
            data.clear()
            name = b""
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    if not data:
        return None
    payload = b"\n".join(data)
    return NamedPayload(payload, name.decode("utf-8", "replace")) if name else payload


# The inside of a JSON string (RFC 8259, section 7).
string_inside = re.compile(rb'[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*').fullmatch
_TEXT_KEY = re.compile(rb'"(?:content|text|reasoning_content|reasoning|thinking)"\s*:\s*"(?!")')
_STRING_REST = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*(?=")')


class EventDecoder:
    """Decodes the payloads of one response, in full only where it must.

    An event whose bytes before and after the text equal those of an earlier content event (one choice, no finish, no
    usage, no error) is a content event by its framing, and `CONTENT` is returned without its text, which
    `text_inside` gives. Generated text cannot imitate framing: the text between must be the inside of one valid
    JSON string.
    """

    __slots__ = ("_after", "_after_size", "_before", "_before_size", "_frame_size", "decoded")

    def __init__(self) -> None:
        self._before = b""
        self._after = b""
        self._before_size = 0
        self._after_size = 0
        self._frame_size: float = math.inf  # of both together; infinite: nothing learnt yet
        self.decoded = 0
        """How many payloads were decoded in full."""

    @property
    def frame(self) -> tuple[bytes, bytes] | None:
        """The bytes before and after the text in a content event; None while they are not known."""
        return (self._before, self._after) if self._frame_size < math.inf else None

    def decode(self, payload: bytes) -> StreamEvent:
        """Tell what a payload carries. Never raises."""
        size = len(payload)
        if (
            size > self._frame_size
            and payload.startswith(self._before)
            and payload.endswith(self._after)
            and string_inside(payload, self._before_size, size - self._after_size)
            and type(payload) is bytes
        ):
            return CONTENT
        self.decoded += 1
        event = classify(payload)
        if event.content and event.finish_reason is None and event.usage is None and event.error_kind is None:
            self._learn(payload, event)
        return event

    def text_inside(self, payload: bytes) -> bytes:
        """The text of a payload that `decode` has just called `CONTENT`: the inside of a string of JSON."""
        return payload[self._before_size : len(payload) - self._after_size]

    def _learn(self, payload: bytes, event: StreamEvent) -> None:
        """Remember the bytes around the text, if there is no doubt where the text is."""
        found = list(_TEXT_KEY.finditer(payload))
        rest = _STRING_REST.match(payload, found[0].end()) if len(found) == 1 else None
        if rest is None or type(payload) is not bytes:
            return
        before, after = payload[: rest.start()], payload[rest.end() :]
        # A backslash outside of the text could hide a second key or quote, so such an event teaches nothing.
        if b"\\" in before or b"\\" in after:
            return
        try:
            text = json_of(b'"' + rest.group() + b'"')
        except ValueError:
            return
        if text == event.text:
            self._before, self._after = before, after
            self._before_size, self._after_size = len(before), len(after)
            self._frame_size = len(before) + len(after)
