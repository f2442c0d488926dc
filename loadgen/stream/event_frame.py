"""Recognises content events straight in the bytes of a chunked response. Pure; the hot path of reading.

Engines send one event a chunk, and the content events of a response differ in their text alone:

    12c CRLF `data: ` BEFORE text AFTER LF LF CRLF

Once BEFORE and AFTER are known (`loadgen.stream.sse.EventDecoder` learns them from an event that it decoded in full), a
chunk of this form is a content event; neither the HTTP parser nor the splitter needs to see it.
"""

from __future__ import annotations

from itertools import repeat
from operator import itemgetter

from loadgen.stream.sse import string_inside

_MAX_SIZE_DIGITS = 8
_X = (b"x", b"X")
_BATCH_BYTES = 16 * 1024
"""Taken at once at most, so that a read full of other events does not cost its length squared."""
_FEW = 4
"""Below so many events' bytes it is quicker to take one at a time."""


def _is_hex(digits: bytes | bytearray) -> bool:
    """Whether what int() took for a hexadecimal number is one for HTTP too: no sign, blank, underscore or 0x."""
    return digits.isalnum() and b"x" not in digits.lower()


class EventFrame:
    """The bytes around the text of a response's content events; `before` and `after` within the payload."""

    __slots__ = ("_after", "_after_size", "_before", "_before_size", "_divider", "_overhead", "_tail", "_tail_size")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = b"data: " + before
        self._tail = after + b"\n\n"
        self._after = self._tail + b"\r\n"
        self._tail_size = len(self._tail)
        self._divider = b"\r\n" + self._before
        self._before_size = len(self._before)
        self._after_size = len(self._after)
        self._overhead = self._before_size + self._after_size - 2

    def text_of(self, event: bytes) -> bytes | None:
        """The text inside of one whole event without a chunk around it, None if it is not such an event."""
        text, text_end = self._before_size, len(event) - self._tail_size
        good = (
            text < text_end
            and event.startswith(self._before)
            and event.endswith(self._tail)
            and string_inside(event, text, text_end)
        )
        return event[text:text_end] if good else None

    def match(self, data: bytes | bytearray, size: int, at: int = 0) -> tuple[int, int]:
        """Count the whole chunks at the front of `data[at:size]` that are such events: (events, where they end).

        A chunk must begin at `at`. What is not recognised for certain is left to others.
        """
        events = one_by_one_until = 0
        while at < size:
            if at >= one_by_one_until and size - at > _FEW * self._overhead:
                count, used = self._match_many(bytes(data[at : min(size, at + _BATCH_BYTES)]))
                events, at = events + count, at + used
                one_by_one_until = at + (0 if count else _BATCH_BYTES)
            else:
                end = self.end_of_one(data, at, size)
                if not end:
                    break
                events, at = events + 1, end
        return events, at

    def end_of_one(self, data: bytes | bytearray, at: int, size: int) -> int:
        """Where in `data[:size]` the chunk that starts at `at` ends, 0 if it is not such an event or not whole."""
        line_end = data.find(b"\r\n", at, at + _MAX_SIZE_DIGITS + 2)
        if line_end < 0:
            return 0
        digits = data[at:line_end]
        try:
            end = line_end + 4 + int(digits, 16)
        except ValueError:
            return 0
        text = line_end + 2 + self._before_size
        text_end = end - self._after_size
        good = (
            text < text_end
            and end <= size
            and data.startswith(self._before, line_end + 2)
            and data.startswith(self._after, text_end)
            and string_inside(data, text, text_end)
            and digits.isalnum()
            and digits[1:2] not in _X  # `_is_hex`, less the call
        )
        return end if good else 0

    def _match_many(self, data: bytes) -> tuple[int, int]:
        """As `match`, but all of `data`'s whole chunks or none, in a few calls each of which does them all.

        Their sizes must have equally many digits.
        """
        pieces = data.split(b"\n\n\r\n")
        rest = pieces.pop()
        count = len(pieces)
        digits = data.find(b"\r", 0, _MAX_SIZE_DIGITS + 1)
        if not count or digits < 1:
            return 0, 0
        text, text_end = digits + len(self._divider), 4 - self._after_size or None
        sizes = list(map(itemgetter(slice(0, digits)), pieces))
        texts = list(map(itemgetter(slice(text, text_end)), pieces))
        good = (
            all(texts)
            and b"".join(map(itemgetter(slice(digits, text)), pieces)) == self._divider * count
            and (
                text_end is None or b"".join(map(itemgetter(slice(text_end, None)), pieces)) == self._after[:-4] * count
            )
            and _is_hex(b"".join(sizes))
            # A blank after a backslash is no escape, so joined texts are valid only if each of them is.
            and string_inside(b" ".join(texts))
        )
        try:
            if not good or list(map(int, sizes, repeat(16))) != [len(text) + self._overhead for text in texts]:
                return 0, 0
        except ValueError:
            return 0, 0
        return count, len(data) - len(rest)
