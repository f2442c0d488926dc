"""A bundle: a folder of files with a manifest of their hashes, whole or cut into parts of one size.

Parts are slices of one stream: all files, one after another, in the order of the manifest.
Standard library only: `.venv` may not be there yet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from loadgen.errors import UserError
from loadgen.files import atomic_write
from stack.commands import SIGN_OF_LIFE_S, say

MANIFEST = "bundle.json"
FORMAT = 1
BLOCK = 1 << 20
OWN = "bakeoff"
"""The set of our own environment; other sets are called as the engines' environments are."""
PROMETHEUS = "prometheus"
PACKAGES = "wheels"
"""The folder in a bundle that pip is pointed to."""


@dataclass(frozen=True)
class Target:
    """Whom a bundle is for."""

    python: str
    """Such as 3.11."""
    platform: str
    """Such as linux-x86_64."""

    @classmethod
    def here(cls) -> Target:
        """This Python on this machine."""
        return cls("{}.{}".format(*sys.version_info), f"{platform.system().lower()}-{platform.machine()}")


@dataclass(frozen=True)
class Kept:
    """A file, or a part."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class PackageSet:
    """What one environment, or program, is made of."""

    made_of: str
    """SHA-256 of what it was chosen by: the lock file."""
    files: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """What `bundle.json` says."""

    target: Target
    glibc: str
    """The oldest that all wheels work with; empty where none needs one."""
    sets: dict[str, PackageSet]
    files: tuple[Kept, ...]
    part_mb: int = 0
    """Size of a part in 10^6 bytes; 0: the files are as they are."""
    parts: tuple[Kept, ...] = field(default=())

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(each.bytes for each in self.files)

    def write(self, folder: Path) -> None:
        """Write it whole or not at all: a folder without it is not a bundle."""
        atomic_write(folder / MANIFEST, json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a bundle. Raises UserError where there is none that can be read."""
    path = folder / MANIFEST
    try:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise UserError(
                f"{path} is of format {told['format']}, and this Bakeoff reads {FORMAT}: make the bundle anew"
            )
        files = tuple(Kept(**each) for each in told["files"])
        parts = tuple(Kept(**each) for each in told["parts"])
        for each in (*files, *parts):
            if not _is_inside(each.path):
                raise UserError(f"{path}: {each.path!r} is not inside the bundle")
        sets = {name: PackageSet(one["made_of"], tuple(one["files"])) for name, one in told["sets"].items()}
        return Manifest(Target(**told["target"]), str(told["glibc"]), sets, files, int(told["part_mb"]), parts)
    except OSError as error:
        raise UserError(
            f"{path}: {(error.strerror or str(error)).lower()}: name the folder that `make bundle` made"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no manifest of a bundle ({type(error).__name__}: {error}): copy it again") from None


def _is_inside(path: str) -> bool:
    parts = Path(path).parts
    return bool(parts) and not Path(path).is_absolute() and ".." not in parts


class Progress:
    """Says every now and then how many bytes are done."""

    def __init__(self, what: str, total: int) -> None:
        """`what` in words; `total` in bytes."""
        self.what, self.total, self.done = what, total, 0
        self._last = time.monotonic()

    def add(self, count: int) -> None:
        """So many bytes more."""
        self.done += count
        if time.monotonic() - self._last >= SIGN_OF_LIFE_S:
            self._last = time.monotonic()
            say(f"  {self.what}: {self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB")


def hash_of(path: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file, in hexadecimal."""
    seen = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            seen.update(block)
            if progress:
                progress.add(len(block))
    return seen.hexdigest()


def cut(folder: Path, files: Sequence[Kept], part_mb: int) -> tuple[Kept, ...]:
    """Write the files of a folder as parts into it."""
    size, total = part_mb * 1_000_000, sum(each.bytes for each in files)
    digits = max(3, len(str(-(-total // size))))
    progress = Progress("cutting into parts", total)
    parts: list[Kept] = []
    stream = _blocks(folder, files)
    left = b""
    while True:
        path = folder / f"part-{len(parts) + 1:0{digits}d}"
        seen, written = hashlib.sha256(), 0
        with path.open("wb") as part:
            while written < size and (block := left or next(stream, b"")):
                block, left = block[: size - written], block[size - written :]
                part.write(block)
                seen.update(block)
                written += len(block)
                progress.add(len(block))
        if not written:
            path.unlink()
            return tuple(parts)
        parts.append(Kept(path.name, written, seen.hexdigest()))


def _blocks(folder: Path, files: Sequence[Kept]) -> Iterator[bytes]:
    for each in files:
        with (folder / each.path).open("rb") as file:
            while block := file.read(BLOCK):
                yield block


class Bundle:
    """A bundle that files are taken from."""

    def __init__(self, folder: Path, unpacked: Path) -> None:
        """`unpacked` is where files of parts are put together. Raises UserError without a readable manifest."""
        self.folder, self.manifest = folder, read_manifest(folder)
        self._home = unpacked if self.manifest.parts else folder
        self._kept = {each.path: each for each in self.manifest.files}

    def check(self, target: Target | None = None, glibc: str | None = None) -> None:
        """Raise UserError, of all that is wrong, where it cannot serve this machine. Reads no file's content."""
        here, wrong = target or Target.here(), []
        made_for = self.manifest.target
        if made_for.python != here.python:
            wrong.append(
                f"it is for Python {made_for.python}, and this is {here.python}: name that one here with "
                f"PYTHON=python{made_for.python}, or make the bundle with --python {here.python}"
            )
        if made_for.platform != here.platform:
            wrong.append(f"it is for {made_for.platform}, and this is {here.platform}")
        libc = platform.libc_ver()[1] if glibc is None else glibc
        if self.manifest.glibc and libc and _numbers(libc) < _numbers(self.manifest.glibc):
            wrong.append(
                f"its wheels need glibc {self.manifest.glibc}, and this machine has {libc}: "
                f"make the bundle with --glibc {libc}"
            )
        there = self.manifest.parts or self.manifest.files
        if absent := [each.path for each in there if not (self.folder / each.path).is_file()]:
            wrong.append(f"{_some(absent)} missing, of {len(there)} in all")
        torn = [
            each.path
            for each in there
            if each.path not in absent and (self.folder / each.path).stat().st_size != each.bytes
        ]
        if torn:
            wrong.append(f"{_some(torn)} of another size than was made: copy again")
        if wrong:
            raise UserError(
                f"the bundle in {self.folder} cannot be used here:\n" + "\n".join(f"- {each}" for each in wrong)
            )

    def supply(self, name: str, made_of: str) -> Path:
        """Make sure of one set's files, by their hashes, and return the folder that they lie in.

        Args:
            name: the set.
            made_of: SHA-256 of the lock file that is to be installed; empty: any will do.

        Raises:
            UserError: the bundle is not for this machine, has no such set, one of another lock file, or files that are
                not what was made.
        """
        self.check()
        found = self.manifest.sets.get(name)
        if found is None:
            held = ", ".join(self.manifest.sets)
            raise UserError(f"the bundle in {self.folder} holds nothing for {name}, only {held}: make one with it")
        if made_of and found.made_of != made_of:
            raise UserError(
                f"the bundle in {self.folder} is of another version of Bakeoff: its packages for {name} are others. "
                "Make the bundle from the commit that is checked out here"
            )
        files = [self._kept[path] for path in found.files]
        progress = Progress(f"checking the bundle's files for {name}", sum(each.bytes for each in files))
        wrong = [each for each in files if not self._make_sure(each, progress)]
        if wrong:
            at_fault = self._parts_at_fault(wrong) if self.manifest.parts else [each.path for each in wrong]
            raise UserError(f"the bundle in {self.folder}: {_some(at_fault)} not what was made (SHA-256): copy again")
        return self._home

    def forget(self) -> None:
        """Remove what was put together from parts; it can be again."""
        if self._home != self.folder:
            shutil.rmtree(self._home, ignore_errors=True)

    def _make_sure(self, kept: Kept, progress: Progress) -> bool:
        """Whether a file is there and is what it should be; of parts, it is put together first."""
        path = self._home / kept.path
        intact = path.is_file() and path.stat().st_size == kept.bytes and hash_of(path, progress) == kept.sha256
        if intact or not self.manifest.parts:
            return intact
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                seen = self._join(kept, file, progress.add)
            if seen == kept.sha256:
                partial.replace(path)
            return seen == kept.sha256
        finally:
            with contextlib.suppress(FileNotFoundError):
                partial.unlink()

    def _place(self, kept: Kept) -> tuple[int, int]:
        """The first byte of a file in the stream, and the one behind its last."""
        start = 0
        for each in self.manifest.files:
            if each.path == kept.path:
                break
            start += each.bytes
        return start, start + kept.bytes

    def _slices(self, kept: Kept) -> Iterator[tuple[Kept, int, int]]:
        """The parts that a file is in: part, first byte in it, number of bytes."""
        start, end = self._place(kept)
        before = 0
        for part in self.manifest.parts:
            first, last = max(start, before), min(end, before + part.bytes)
            if first < last:
                yield part, first - before, last - first
            before += part.bytes

    def _join(self, kept: Kept, file: BinaryIO, tell: Callable[[int], None]) -> str:
        """Write a file from its parts; returns its SHA-256."""
        seen = hashlib.sha256()
        for part, offset, count in self._slices(kept):
            left = count
            with (self.folder / part.path).open("rb") as source:
                source.seek(offset)
                while left and (block := source.read(min(BLOCK, left))):
                    file.write(block)
                    seen.update(block)
                    left -= len(block)
                    tell(len(block))
        return seen.hexdigest()

    def _parts_at_fault(self, wrong: Sequence[Kept]) -> list[str]:
        """The parts, of those that these files are in, whose own hash is wrong."""
        parts = {part.path: part for kept in wrong for part, _, _ in self._slices(kept)}
        bad = [path for path, part in parts.items() if hash_of(self.folder / path) != part.sha256]
        return bad or list(parts)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split(".") if number.isdigit())


def _some(names: Sequence[str]) -> str:
    """Names with their verb, five at most: "a is", "a and b are", "a, b, c, d, e and 12 more are"."""
    more = [f"{len(names) - 5} more"] if len(names) > 5 else []
    *first, last = [*names[:5], *more]
    return f"{', '.join(first)} and {last} are" if first else f"{last} is"
