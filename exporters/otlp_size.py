"""How many values a push would make objects of, counted before any object is made: bytes are no measure of that.

A point costs two bytes on the wire and hundreds in memory. Google's reader has no limit of its own, so its input is
measured here, by a walk over protobuf's wire format (https://protobuf.dev/programming-guides/encoding/) along the
fields of OTLP that hold messages. A reader of our own would need the same walk, and all that Google's does besides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_VALUES = 20_000
"""Fields of protobuf, or values of JSON, in one push. KsanaLLM's have 1,500."""
MAX_DEPTH = 32
Shape = Mapping[int, Any]
"""Of a message: by field number, the shapes of the messages that it holds."""

_any: dict[int, Any] = {}
_pair: Shape = {2: _any}
_any |= {5: {1: _any}, 6: {1: _pair}}
_exemplar: Shape = {7: _pair}
_number: Shape = {7: _pair, 5: _exemplar}
_metric: Shape = {
    5: {1: _number},
    7: {1: _number},
    9: {1: {9: _pair, 8: _exemplar}},
    10: {1: {1: _pair, 8: {}, 9: {}, 11: _exemplar}},
    11: {1: {7: _pair, 6: {}}},
    12: _pair,
}
REQUEST: Shape = {1: {1: {1: _pair, 3: {}}, 2: {1: {3: _pair}, 2: _metric}}}


class TooManyError(ValueError):
    """A push of more values, or nested deeper, than may be."""


def check_protobuf(body: bytes) -> None:
    """Raise TooManyError for a request with too many fields. What is no protobuf is left for its reader to refuse."""
    left = MAX_VALUES
    open_messages: list[tuple[int, int, Shape]] = [(0, len(body), REQUEST)]
    while open_messages:
        at, end, shape = open_messages.pop()
        while at < end:
            left -= 1
            if left < 0:
                raise TooManyError(f"more than {MAX_VALUES} values")
            tag, at = _varint(body, at, end)
            wire = tag & 7
            if wire == 0:
                _, at = _varint(body, at, end)
            elif wire == 1:
                at += 8
            elif wire == 5:
                at += 4
            elif wire == 2:
                size, at = _varint(body, at, end)
                inner = shape.get(tag >> 3)
                if inner is not None and at + size <= end:
                    if len(open_messages) >= MAX_DEPTH:
                        raise TooManyError(f"messages nested deeper than {MAX_DEPTH}")
                    open_messages.append((at + size, end, shape))
                    end, shape = at + size, inner
                    continue
                at += size
            else:
                return


def _varint(body: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at a place, and the place behind it; past the end where it is cut off."""
    value = shift = 0
    while at < end and shift < 70:
        byte = body[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    return 0, len(body) + 1


def check_json(body: bytes) -> None:
    """Raise TooManyError for a body with too many values. A text's commas and brackets count too, which errs safely."""
    if body.count(b",") + body.count(b"{") + body.count(b"[") > MAX_VALUES:
        raise TooManyError(f"more than {MAX_VALUES} values")
