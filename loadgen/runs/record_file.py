"""Request records on disk: a `.jsonl` file that keeps all that was appended, whatever ends the process."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType
from typing import BinaryIO

import orjson

from loadgen.errors import UserError
from loadgen.files import open_regular
from loadgen.message import mark, say
from loadgen.record import PER_EVENT, RequestRecord

MAX_BYTES, MAX_LINE, MAX_RECORDS = 16 << 30, 32 << 20, 20_000_000
"""What a file of records may have: far beyond what a race leaves, and an end all the same."""


class RecordFile:
    """Appends request records to a `.jsonl` file, one line each; every append reaches the operating system.

    Several processes may append to one file, as in a race whose engines run together: one at a time, in whole lines.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW, 0o644)

    def append(self, records: Iterable[RequestRecord]) -> None:
        """Write records, all or none. Raises OSError (disk full) with the file as it was before."""
        data = b"".join(map(_line, records))
        with self._alone():
            size = os.fstat(self._fd).st_size
            if size and os.pread(self._fd, 1, size - 1) != b"\n":
                data = b"\n" + data  # a writer was killed in the middle of a line
            view = memoryview(data)
            try:
                while view:
                    view = view[os.write(self._fd, view) :]
            except OSError:
                with contextlib.suppress(OSError):  # a device cannot be cut; the first error is the one to tell
                    os.ftruncate(self._fd, size)
                raise

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other writers off: what one cuts after a full disk must not be another's."""
        with contextlib.suppress(OSError):  # a file system without locks: there is one writer in all other races
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)

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


def _record(line: bytes) -> RequestRecord:
    """Raises ValueError (`json.JSONDecodeError` where it is not JSON), TypeError or AttributeError: it is no record."""
    try:
        return RequestRecord.from_dict(orjson.loads(line))
    except (ValueError, TypeError, AttributeError):  # what orjson does not take, and mistakes, in Python's own words
        return RequestRecord.from_dict(json.loads(line))


@dataclasses.dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no record."""

    number: int
    """In its file, from 1."""
    torn: bool
    """Whether a writer was stopped in the middle of it: it is cut off, and the last one that its writer wrote."""
    problem: str


def read_records(path: Path) -> tuple[list[RequestRecord], list[BadLine]]:
    """Read a `.jsonl` file. Returns the records, and the lines that are none.

    Raises:
        UserError: the file cannot be read.
    """
    records: list[RequestRecord] = []
    bad: list[BadLine] = []
    seen: set[tuple[str, str, int, int, int]] = set()
    cut: dict[int, int] = {}
    """By position in `bad`, how many records came before a line that is cut off."""
    try:
        with open_regular(path, MAX_BYTES) as file:
            for number, line in enumerate(_lines(file, path), start=1):
                if not line.strip():
                    continue
                try:
                    record = _record(line)
                    problem = mistyped(record) or _again(record, seen)
                except (json.JSONDecodeError, UnicodeDecodeError):
                    problem = say("it is not JSON")
                    if not line.rstrip().endswith(b"}"):
                        cut[len(bad)] = len(records)
                except (ValueError, TypeError, AttributeError):
                    problem = say("it is no request record")
                if problem is None:
                    records.append(record)
                else:
                    bad.append(BadLine(number, False, problem))
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    for place, before in cut.items():
        # A run that goes on after a crash does so with another block or attempt, so a line amid one block's was edited.
        if before == len(records) or before == 0 or records[before - 1].block != records[before].block:
            bad[place] = dataclasses.replace(bad[place], torn=True)
    return records, bad


def _again(record: RequestRecord, seen: set[tuple[str, str, int, int, int]]) -> str | None:
    """Why a record that was read before counts once only: the second would double its block's throughput."""
    key = record.block, record.worker, record.user, record.index, record.t_send
    if key in seen:
        return say("this request stands there already")
    seen.add(key)
    return None


def _lines(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The lines of a file. Raises UserError for one that is no record of ours, however it goes on, or for too many."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE or number > MAX_RECORDS:
            what = f"a line of more than {MAX_LINE >> 20} MiB" if len(line) > MAX_LINE else f"over {MAX_RECORDS} lines"
            raise UserError(f"{path}:{number}: {what}: this is no file of request records.")
        yield line


KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "int | None": (int, NoneType),
    "str": (str,),
    "str | None": (str, NoneType),
    "Clock": (str,),
    "TokenSource | None": (str, NoneType),
    "TpotBasis | None": (str, NoneType),
}
"""What a field may hold, by its annotation."""
CHECKED = {
    field.name: KINDS[str(field.type)] for field in dataclasses.fields(RequestRecord) if field.name not in PER_EVENT
}


def mistyped(record: RequestRecord) -> str | None:
    """Say which value of a record its field cannot hold; None where there is none. Lists were checked before."""
    for name, kinds in CHECKED.items():
        value = getattr(record, name)
        if type(value) not in kinds:
            wanted = mark("{field} is {value}, not text")
            if int in kinds:
                wanted = mark("{field} is {value}, not a whole number")
            return say(wanted, field=name, value=json.dumps(value)[:40])
        if type(value) is int and abs(value) >= (2**63 if name.startswith("t_") or name.endswith("_ns") else 2**31):
            return say("{field} is {value}, which is too large", field=name, value=value)
    return None


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
                records.append(_record(line))
        return records
