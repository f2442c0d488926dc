"""What a Parquet file would take in memory, by its footer and the heads of its pages, before anything of it is built.

A page of a few bytes may hold hundreds of millions of numbers, and whoever asks the library for their count has them.
The heads are in Thrift's compact form, of which only as much is read as Parquet uses.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

MAX_FOOTER, MAX_HEAD = 8 << 20, 1 << 20
MAX_VALUES, MAX_DEPTH = 1_000_000, 12
"""Of the footer, or of one page's head."""
MAX_PAGES = 1_000_000
HEAD_READ = 1 << 12
"""Bytes that hold a page's head, nearly always."""
BYTES_A_VALUE = 8
_NOT_PARQUET = "it is no Parquet file"


def unpacked_sizes(file: BinaryIO) -> tuple[int, int]:
    """The rows of a Parquet file, and the bytes of all its pages when they are unpacked.

    Raises ValueError: it is none, or has more parts than any file of records.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(max(0, size - 8))
    end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or not 0 < length <= min(MAX_FOOTER, size - 8):
        raise ValueError(_NOT_PARQUET)
    file.seek(size - 8 - length)
    try:
        footer = _Compact(file.read(length)).struct()
    except IndexError:
        raise ValueError(_NOT_PARQUET) from None
    rows = unpacked = pages = 0
    for group in _list(footer.get(4)):
        rows += max(0, _number(group.get(3)))
        for column in _list(group.get(1)):
            about = column.get(3)
            if not isinstance(about, dict):
                raise ValueError(_NOT_PARQUET)
            place = _number(about.get(11, about.get(9)))
            last = place + _number(about.get(7))
            if not 0 < place <= last <= size:
                raise ValueError(_NOT_PARQUET)
            taken = 0
            while place < last:
                pages += 1
                if pages > MAX_PAGES:
                    raise ValueError(f"it has over {MAX_PAGES} pages")
                place, page = _page(file, place, last)
                taken += page
            unpacked += max(taken, BYTES_A_VALUE * _number(about.get(5)))
    return rows, unpacked


def _page(file: BinaryIO, place: int, last: int) -> tuple[int, int]:
    """Where the next page begins, and what this one takes."""
    for most in (HEAD_READ, MAX_HEAD):
        file.seek(place)
        read = _Compact(file.read(min(most, last - place)))
        try:
            head = read.struct()
            break
        except IndexError:  # it is longer
            continue
    else:
        raise ValueError(_NOT_PARQUET)
    packed, plain = _number(head.get(3)), _number(head.get(2))
    if packed < 0 or plain < 0:
        raise ValueError(_NOT_PARQUET)
    values = [_number(told.get(1)) for told in (head.get(5), head.get(7), head.get(8)) if isinstance(told, dict)]
    return place + read.place + packed, max(plain, *(BYTES_A_VALUE * value for value in (0, *values)))


def _number(value: Any) -> int:
    if not isinstance(value, int):
        raise ValueError(_NOT_PARQUET)
    return value


def _list(value: Any) -> list[dict[int, Any]]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise ValueError(_NOT_PARQUET)
    return value


class _Compact:
    """Structures of Thrift's compact protocol, as dictionaries by field number.

    Raises IndexError where the bytes end too soon, ValueError for what is none.
    """

    def __init__(self, data: bytes) -> None:
        self.place = 0
        self._data = data
        self._values = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        found: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != 0:
            kind, step = head & 15, head >> 4
            number = number + step if step else self._signed()
            found[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            raise ValueError(_NOT_PARQUET)
        if kind in (1, 2, 3):  # in a list, a truth is a byte too
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind in (9, 10):
            head = self._byte()
            size = head >> 4 if head >> 4 != 15 else self._unsigned()
            return [self._value(head & 15, depth + 1) for _ in range(self._within(size))]
        if kind == 12:
            return self.struct(depth + 1)
        raise ValueError(_NOT_PARQUET)

    def _within(self, size: int) -> int:
        """A number of things of which each takes a byte at least."""
        if size > len(self._data) - self.place:
            raise IndexError
        return size

    def _bytes(self, size: int) -> bytes:
        begin, self.place = self.place, self.place + self._within(size)
        return self._data[begin : self.place]

    def _byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def _unsigned(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError(_NOT_PARQUET)

    def _signed(self) -> int:
        value = self._unsigned()
        return value >> 1 ^ -(value & 1)
