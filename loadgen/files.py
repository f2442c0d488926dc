"""Files that are written whole or not at all; and what cannot be written is found out before the load, not after it.

Launchers take this into the engines' images: standard library only, and no newer than Python 3.9.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from loadgen.errors import UserError

STDOUT = Path("-")
LONGEST_LINE = 16 * 1024 * 1024
GZIP = b"\x1f\x8b"


def atomic_write(path: Path, content: str | bytes, *, mode: int | None = None, sync: bool = False) -> None:
    """Write a file so that a crash leaves either the old or the new one; half a one is never seen.

    Args:
        path: the file; its folder is there.
        content: text is encoded as UTF-8, and what UTF-8 cannot hold (half of a surrogate pair) becomes `?`.
        mode: the file's permissions; None: as the umask has them.
        sync: wait until the disk has the content, so that even a lost machine leaves a whole file.

    Raises:
        OSError: it cannot be written; the old file stays, and nothing beside it.
    """
    data = content.encode("utf-8", "replace") if isinstance(content, str) else content
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        if mode is not None:
            partial.chmod(mode)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_file(path: Path, content: str | bytes, *, mode: int | None = None, sync: bool = False) -> None:
    """Write a file as `atomic_write` does. Raises UserError with the path, the reason and what can be done."""
    try:
        atomic_write(path, content, mode=mode, sync=sync)
    except OSError as error:
        raise cannot_be_written(path, error) from None


def cannot_be_written(path: Path | str, error: OSError, hint: str = "") -> UserError:
    """Say that something cannot be written, why, and what to do: `hint`, and on a full disk to free some space."""
    full = "Free some space and try again." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    said = (f"{path}: cannot be written: {error.strerror or error}.", hint, full)
    return UserError(" ".join(part for part in said if part))


def read_lines(path: Path, hint: str) -> Iterator[tuple[int, str]]:
    """The lines of a text file that hold anything, each with its number. Gzip and a byte order mark are taken off.

    Raises UserError with `hint`, which says what file it should be.
    """
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == GZIP
            raw.seek(0)
            opened = gzip.GzipFile(fileobj=raw) if zipped else raw
            with io.TextIOWrapper(opened, encoding="utf-8-sig") as file:
                for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), ""), start=1):
                    if len(line) == LONGEST_LINE:
                        raise UserError(f"{path}:{number}: longer than {LONGEST_LINE} characters. {hint}")
                    if line.strip():
                        yield number, line
    except UnicodeDecodeError:
        raise UserError(f"{path}: is no UTF-8 text. {hint}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}. {hint}") from None


def tail(path: Path, lines: int, start: int = 0) -> str:
    """The last lines of a text file, from byte `start` on; empty if there is none. Reads no more than its last 64 KiB.

    A file that is shorter than `start` by now, as a log that was rotated, is read from its beginning.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 65536, start if start <= size else 0, 0))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def check_writable(file: Path | None) -> None:
    """Open a result's file as it will be, and leave it as it was. Raises UserError where it cannot be written."""
    if file is None or file == STDOUT:
        return
    if file.is_dir():
        raise UserError(f"{file}: cannot be written: it is a folder. Name a file.")
    if not file.absolute().parent.is_dir():
        raise UserError(f"{file}: cannot be written: its folder must exist and be writable.")
    try:
        if file.exists() and not stat.S_ISREG(file.stat().st_mode):
            return  # a pipe or a device: to open it is to use it
        new = not file.exists()
        file.open("ab").close()
        if new:
            file.unlink()
    except OSError as error:
        raise cannot_be_written(file, error, "Name a file in a folder that you may write to.") from None


def check_folder(folder: Path) -> None:
    """Try to write to a folder for runs, or to where it would be made. Raises UserError; leaves nothing behind."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        reason = f"{there}: {error.strerror or error}" if there.is_dir() else f"{there} is no folder"
        raise UserError(
            f"--runs-dir {folder}: runs cannot be written there ({reason}). Name a folder that you may write to."
        ) from None


def write_result(file: Path, text: str, *, append: bool = False) -> None:
    """Write a result to where the user wants it: a file, a pipe, a device; `-`: stdout. Raises UserError."""
    if file == STDOUT:
        sys.stdout.write(text)
        return
    try:
        with file.open("a" if append else "w", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise cannot_be_written(file, error) from None
