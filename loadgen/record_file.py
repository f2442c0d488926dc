"""Request records on disk: a `.jsonl` file that keeps all that was appended, whatever ends the process."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import orjson

from loadgen.errors import UserError
from loadgen.record import RequestRecord


class RecordFile:
    """Appends request records to a `.jsonl` file, one line each; every append reaches the operating system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
        self._mend_torn_end()

    def _mend_torn_end(self) -> None:
        """Start a new line when an earlier writer was killed in the middle of one."""
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    os.write(self._fd, b"\n")

    def append(self, records: Iterable[RequestRecord]) -> None:
        """Write records, all or none. Raises OSError (disk full) with the file as it was before."""
        data = b"".join(map(_line, records))
        view = memoryview(data)
        size = os.fstat(self._fd).st_size
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            with contextlib.suppress(OSError):  # a device cannot be cut; the first error is the one to tell
                os.ftruncate(self._fd, size)
            raise

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _line(record: RequestRecord) -> bytes:
    try:
        return orjson.dumps(record, list, orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half a surrogate pair, or a number beyond 64 bits, which a server may send
        return json.dumps(record.to_dict(), separators=(",", ":")).encode() + b"\n"


def read_records(path: Path) -> tuple[list[RequestRecord], int]:
    """Read a `.jsonl` file. Returns the records and the number of unreadable lines (torn by a crash)."""
    records, broken = [], 0
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.strip():
                    continue
                try:
                    records.append(RequestRecord.from_dict(json.loads(line)))
                except (ValueError, TypeError, AttributeError):
                    broken += 1
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    return records, broken


class RecordTail:
    """Reads what is appended to a `.jsonl` file, as far as its lines are whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def read(self) -> list[RequestRecord]:
        """Return the records since the last call; unreadable lines are passed over. Raises UserError."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self._path}: cannot be read: {error.strerror or error}") from None
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        records = []
        for line in lines:
            self._read += len(line)
            with contextlib.suppress(ValueError, TypeError, AttributeError):
                records.append(RequestRecord.from_dict(orjson.loads(line)))
        return records
