"""Stamps beside model files and folders: what they hold, by hash, so that a torn or changed model is not served.

Standard library only: engines' images read and write stamps too.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from loadgen.files import atomic_write

# Raise this when convert.py writes something else, and every checkout converts anew.
CONVERTER_VERSION = 1


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_path(path: Path) -> Path:
    """The stamp beside a model file or folder: JSON with `sha256` (of the weights) and `files`."""
    return path.with_name(path.name + ".stamp.json")


def stamp_files(files: list[Path]) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of each file, by name."""
    return {file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)} for file in files}


def write_stamp(path: Path, expected: dict[str, Any], weights: str) -> None:
    """Stamp a model that has just been made; `weights` is the name of the file that holds them."""
    files = stamp_files(sorted(path.iterdir()) if path.is_dir() else [path])
    stamp = {**expected, "sha256": files[weights]["sha256"], "files": files}
    atomic_write(stamp_path(path), json.dumps(stamp, indent=2) + "\n")


def read_stamp(path: Path) -> dict[str, Any]:
    """The stamp of a model; empty where there is no usable one."""
    try:
        stamp = json.loads(stamp_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def is_intact(path: Path, expected: dict[str, Any], *, full: bool) -> bool:
    """Whether a model file or folder is what its stamp says: by sizes, or by hashes too if `full`.

    `expected` are the entries of the stamp that must hold for the stamp itself to be of use.
    """
    stamp = read_stamp(path)
    files = stamp.get("files")
    if not files or any(stamp.get(key) != value for key, value in expected.items()):
        return False
    base = path if path.is_dir() else path.parent
    for name, facts in files.items():
        file = base / name
        if not file.is_file() or file.stat().st_size != facts["bytes"]:
            return False
        if full and sha256_of(file) != facts["sha256"]:
            return False
    return True


def expected_hf(gguf: Path) -> dict[str, Any]:
    """What the stamp of a conversion of this GGUF says."""
    return {"form": "hf", "source_sha256": read_stamp(gguf).get("sha256"), "converter": CONVERTER_VERSION}
