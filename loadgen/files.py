"""Files that are written whole or not at all; and what cannot be written is found out before the load, not after it.

Launchers take this into the engines' images: standard library only, and no newer than Python 3.9.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import secrets
import stat
import sys
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from loadgen.errors import UserError

STDOUT = Path("-")
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
    partial = f"{path.name}.{secrets.token_hex(8)}.part"
    # By the folder's own handle, and never through a link: the folder may have come from someone else.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=folder)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                if mode is not None:
                    os.fchmod(descriptor, mode)
                if sync:
                    file.flush()
                    os.fsync(descriptor)
            os.replace(partial, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(partial, dir_fd=folder)
            raise
    finally:
        os.close(folder)


def make_folder(path: Path) -> None:
    """Make a folder in one that may have come from someone else. Raises OSError; a link in its place is one."""
    path.mkdir(parents=True, exist_ok=True)
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link to somewhere else")


def open_regular(path: Path, limit: int) -> BinaryIO:
    """Open a file that someone else may have made: a regular one, no link, and of no more than `limit` bytes.

    Raises:
        OSError: it is none such, or cannot be read; `strerror` says why.
    """
    try:
        # Without O_NONBLOCK a FIFO would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a link to somewhere else") from None
        raise
    file = os.fdopen(descriptor, "rb")
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
        file.close()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        size = f"{limit >> 20} MiB" if limit >> 20 else f"{limit >> 10} KiB"
        raise OSError(errno.EFBIG, f"it has more than {size}")
    return file


def read_regular(path: Path, limit: int) -> str:
    """The UTF-8 text of such a file. Raises OSError as `open_regular` does, and UnicodeDecodeError."""
    with open_regular(path, limit) as file:
        return file.read(limit + 1).decode("utf-8")


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


def read_lines(path: Path, hint: str, limit: int = 1 << 30, longest: int = 1 << 24) -> Iterator[tuple[int, str]]:
    """The lines of a text file that hold anything, each with its number. Gzip and a byte order mark are taken off.

    Raises UserError with `hint`, which says what file it should be: it is no regular one, has more than `limit` bytes,
    packed or not, or a line of more than `longest`.
    """
    left = limit
    try:
        with open_regular(path.resolve(), limit) as raw:
            zipped = raw.read(2) == GZIP
            raw.seek(0)
            unpacked: BinaryIO = gzip.GzipFile(fileobj=raw) if zipped else raw  # type: ignore[assignment]
            with io.TextIOWrapper(unpacked, encoding="utf-8-sig") as file:
                for number, line in enumerate(iter(lambda: file.readline(longest), ""), start=1):
                    left -= len(line)
                    if len(line) == longest or left < 0:
                        raise UserError(f"{path}:{number}: too long. {hint}")
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
