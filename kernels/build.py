"""Builds the kernels with nvcc into one shared library, and loads it through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

from kernels.steps import CUDA_FOLDER, STEPS

ARCHITECTURE = "arch=compute_90a,code=sm_90a"
FLAGS = ("-std=c++17", "-O3", "-gencode", ARCHITECTURE, "-lineinfo", "-Xcompiler", "-fPIC")


class BuildError(RuntimeError):
    """nvcc is missing, or refused a source."""


class Arguments(ctypes.Structure):
    """`AttentionArgs` of common.cuh, field by field."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("q", "k", "v", "o", "scratch", "cu_q", "cu_k", "stream")),
        *((name, ctypes.c_int) for name in ("batch", "heads", "kv_heads", "seq_q", "seq_k", "dim")),
        *((name, ctypes.c_int) for name in ("total_q", "total_k", "causal", "is_bf16")),
        ("scale", ctypes.c_float),
    )


def find_nvcc() -> Path:
    """nvcc: $NVCC, on the PATH, under $CUDA_HOME, or in the usual folder. BuildError when there is none."""
    home = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda"))
    for candidate in (os.environ.get("NVCC"), shutil.which("nvcc"), str(home / "bin" / "nvcc")):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    raise BuildError(
        "no nvcc found: install CUDA 12.5 or later, set NVCC to one, or run `make kernels`, which brings it as wheels"
    )


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(f"nvcc failed ({' '.join(command)}):\n{result.stderr.strip()}")


def compile_source(source: Path, target: Path, nvcc: Path | None = None, flags: tuple[str, ...] = FLAGS) -> None:
    """Compiles one source into the object `target`; BuildError with nvcc's own words when it refuses."""
    _run([str(nvcc or find_nvcc()), *flags, "-c", str(source), "-o", str(target)])


def library_path(folder: Path | None = None) -> Path:
    """Where the library of these sources lies: named by a digest of sources and flags."""
    digest = hashlib.sha256(" ".join(FLAGS).encode())
    for source in sorted(CUDA_FOLDER.iterdir()):
        digest.update(source.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = folder or Path(os.environ.get("BAKEOFF_KERNELS", cache / "bakeoff-kernels"))
    return folder / f"attention-{digest.hexdigest()[:16]}.so"


def build(folder: Path | None = None) -> Path:
    """Compiles all steps, each in its own nvcc, and links them; does nothing when the library is there."""
    library = library_path(folder)
    if library.exists():
        return library
    nvcc = find_nvcc()
    work = library.with_suffix(f".{os.getpid()}")
    work.mkdir(parents=True)
    try:
        objects = [work / f"{step.name}.o" for step in STEPS]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda pair: compile_source(pair[0].path, pair[1], nvcc), zip(STEPS, objects, strict=True)))
        linked = work / "attention.so"
        _run([str(nvcc), "-shared", "-gencode", ARCHITECTURE, *map(str, objects), "-o", str(linked)])
        linked.replace(library)
    finally:
        shutil.rmtree(work)
    return library


@lru_cache
def load() -> ctypes.CDLL:
    """The library, built at the first call."""
    library = ctypes.CDLL(str(build()))
    for step in STEPS:
        entry = getattr(library, f"attention_step{step.number}")
        entry.argtypes, entry.restype = (ctypes.POINTER(Arguments),), ctypes.c_int
    library.attention_error.argtypes, library.attention_error.restype = (ctypes.c_int,), ctypes.c_char_p
    return library


def why_not() -> str | None:
    """Why the kernels cannot run here, and what would help; None when they can (they are built then)."""
    try:
        import torch
    except ModuleNotFoundError:
        return "no PyTorch here: install it (pip install torch) on a machine with an H100 or H200"
    if not torch.cuda.is_available():
        return "no CUDA card here: these kernels run on an H100 or H200"
    if torch.cuda.get_device_capability() != (9, 0):
        return f"{torch.cuda.get_device_name()} is no Hopper card (compute capability 9.0): use an H100 or H200"
    try:
        build()
    except BuildError as problem:
        return str(problem)
    return None


if __name__ == "__main__":
    try:
        print(build())
    except BuildError as problem:
        sys.exit(f"error: {problem}")
