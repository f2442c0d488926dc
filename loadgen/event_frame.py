"""Recognises content events straight in the bytes of a chunked response. Pure; the hot path of reading.

Engines send one event a chunk, and the content events of a response differ in their text alone:

    12c CRLF `data: ` BEFORE text AFTER LF LF CRLF

Once BEFORE and AFTER are known (`loadgen.sse.EventDecoder` learns them from an event that it decoded in full), a
chunk of this form is a content event; neither the HTTP parser nor the splitter needs to see it.
"""

from __future__ import annotations

from itertools import repeat

from loadgen.sse import string_inside

_MAX_SIZE_DIGITS = 8


class EventFrame:
    """The bytes around the text of a response's content events; `before` and `after` within the payload."""

    __slots__ = ("_after", "_after_size", "_before", "_before_size", "_divider", "_overhead")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = b"data: " + before
        self._after = after + b"\n\n\r\n"
        self._divider = b"\r\n" + self._before
        self._before_size = len(self._before)
        self._after_size = len(self._after)
        self._overhead = self._before_size + self._after_size - 2

    def match(self, data: bytes | bytearray, size: int) -> tuple[int, int]:
        """Count the whole chunks at the front of `data[:size]` that are such events: (events, bytes they take).

        `data` must start at a chunk's beginning. What is not recognised for certain is left to others.
        """
        end = self._end_of_first(data, size)
        if end == size or not end:
            return (1, end) if end else (0, 0)
        events, used = self._match_many(bytes(data[end:size]))
        return 1 + events, end + used

    def _end_of_first(self, data: bytes | bytearray, size: int) -> int:
        """Where the first chunk ends, 0 if it is not such an event or not whole."""
        line_end = data.find(b"\r\n", 0, _MAX_SIZE_DIGITS + 2)
        digits = data[: max(line_end, 0)]
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
            and digits.isalnum()  # int() takes a sign, blanks and underscores too
        )
        return end if good else 0

    def _match_many(self, data: bytes) -> tuple[int, int]:
        """As `match`, for many events at once, each step one call for all of them."""
        pieces = data.split(self._after)
        pieces.pop()  # the bytes behind the last event's end
        parts = list(map(bytes.partition, pieces, repeat(self._divider)))
        texts = [text for _, _, text in parts]
        if not self._all_good(parts, texts):
            good = 0
            while good < len(parts) and self._all_good(parts[good : good + 1], texts[good : good + 1]):
                good += 1
            del pieces[good:]
        return len(pieces), sum(map(len, pieces)) + len(pieces) * self._after_size

    def _all_good(self, parts: list[tuple[bytes, bytes, bytes]], texts: list[bytes]) -> bool:
        sizes = [digits for digits, _, _ in parts]
        if not all(texts) or not b"0".join(sizes).isalnum() or max(map(len, sizes), default=0) > _MAX_SIZE_DIGITS:
            return False
        overhead = self._overhead
        try:
            if list(map(int, sizes, repeat(16))) != [len(text) + overhead for text in texts]:
                return False
        except ValueError:
            return False
        # A blank after a backslash is no escape, so joined texts are valid only if each of them is.
        return string_inside(b" ".join(texts)) is not None
