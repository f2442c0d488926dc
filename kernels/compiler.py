"""Do all sources compile? `python -m kernels.compiler` answers on any machine with nvcc, with a GPU or without.

Results are kept in `.bakeoff/kernels/` by what they depend on, so that a source is compiled once. A quick compile
(little optimisation) finds what does not compile; a full one also tells registers and spills.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from kernels import build
from kernels.steps import CUDA_FOLDER, STEPS

ROOT = Path(__file__).parent.parent
KEPT = ROOT / ".bakeoff" / "kernels"
INSTALLED = ROOT / ".bakeoff" / "cuda"
"""Where `--install` puts nvcc."""
VERSION = "13.0.*"
WHEELS = ("nvidia-cuda-nvcc", "nvidia-nvvm", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cccl")
"""nvcc, its back end and the headers, all of one version: what a newer back end writes an older ptxas cannot read."""
FLAGS = ("-cubin", "-std=c++17", "-gencode", build.ARCHITECTURE)
QUICK = ("-Xcicc", "-O1", "-Xptxas", "-O1")
FULL = ("-Xptxas", "-v")
RESOURCES = re.compile(r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers", re.DOTALL)


@dataclass(frozen=True)
class Compiled:
    """How one source fared."""

    source: str
    ok: bool
    seconds: float
    """Of the compile, also when that was an earlier one."""
    words: str
    """What nvcc said."""
    registers: int | None = None
    """The most of any kernel in it, a thread; of a full compile only."""
    spilled: int | None = None
    """Bytes of the worst kernel, stores and loads."""


def find_nvcc() -> Path | None:
    """The nvcc that `build` takes, else that of `--install` or of wheels in this Python; None where there is none."""
    with contextlib.suppress(build.BuildError):
        return build.find_nvcc()
    wheels = importlib.util.find_spec("nvidia")
    folders = [INSTALLED / "nvidia", *map(Path, (wheels.submodule_search_locations or []) if wheels else [])]
    homes = [home for folder in folders for home in sorted(folder.glob("cu*"))]
    return next((nvcc for home in homes if (nvcc := home / "bin" / "nvcc").is_file()), None)


def missing() -> str | None:
    """Why nothing can be compiled here, and what to do; None when it can."""
    if find_nvcc() is None:
        return "no nvcc on PATH, in CUDA_HOME or in wheels: `make kernels` installs it from wheels"
    if shutil.which("g++") is None:
        return "nvcc needs g++, and there is none on PATH: on Debian and Ubuntu, apt install g++"
    return None


def install() -> None:
    """Put nvcc and its headers into `.bakeoff/cuda` from the package index. Raises CalledProcessError."""
    wanted = [f"{wheel}=={VERSION}" for wheel in WHEELS]
    pip = (sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check")
    subprocess.run([*pip, "--target", str(INSTALLED), *wanted], check=True)


def compile_source(source: Path, *, quick: bool, nvcc: Path) -> Compiled:
    """Compile one source for Hopper, or take what came of it before."""
    flags = (*FLAGS, *(QUICK if quick else FULL))
    kept = KEPT / f"{source.stem}-{_key(source, flags, nvcc)}.json"
    if kept.is_file():
        return Compiled(**json.loads(kept.read_text(encoding="utf-8")))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [str(nvcc), *flags, "-o", str(Path(folder) / "out.cubin"), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    words = done.stdout + done.stderr
    found = [(int(used), int(stores) + int(loads)) for stores, loads, used in RESOURCES.findall(words)]
    result = Compiled(
        source.name,
        done.returncode == 0,
        round(time.monotonic() - began, 1),
        "" if done.returncode == 0 and quick else words,
        max((used for used, _ in found), default=None),
        max((spilled for _, spilled in found), default=None),
    )
    if result.ok:
        KEPT.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(asdict(result)), encoding="utf-8")
        part.replace(kept)
    return result


def compile_all(sources: Iterable[Path], *, quick: bool, nvcc: Path) -> list[Compiled]:
    """Compile sources side by side, as many as there are cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda source: compile_source(source, quick=quick, nvcc=nvcc), sources))


def _key(source: Path, flags: Sequence[str], nvcc: Path) -> str:
    """A name for all that the result depends on: source, headers, flags and compiler."""
    seen = hashlib.sha256()
    for part in (source, *sorted(CUDA_FOLDER.glob("*.cuh"))):
        seen.update(part.name.encode() + b"\0" + part.read_bytes() + b"\0")
    seen.update("\0".join((*flags, _version(nvcc))).encode())
    return seen.hexdigest()[:16]


@lru_cache
def _version(nvcc: Path) -> str:
    return subprocess.run([str(nvcc), "--version"], capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Compile every step and say how it went; exit status 1 when one does not compile, 2 without a compiler."""
    parser = argparse.ArgumentParser(prog="python -m kernels.compiler", description="Compile all CUDA sources.")
    parser.add_argument("--quick", action="store_true", help="little optimisation: only whether they compile")
    parser.add_argument("--install", action="store_true", help="install nvcc from wheels where there is none")
    options = parser.parse_args()
    if options.install and find_nvcc() is None:
        print(f"installing nvcc {VERSION} into {INSTALLED.relative_to(ROOT)}")
        try:
            install()
        except subprocess.CalledProcessError:
            print("error: nvcc could not be installed (see above); if it is the network, try again", file=sys.stderr)
            return 2
    why, nvcc = missing(), find_nvcc()
    if why is not None or nvcc is None:
        print(f"error: {why}", file=sys.stderr)
        return 2
    results = compile_all([step.path for step in STEPS], quick=options.quick, nvcc=nvcc)
    for result in results:
        used = "" if result.registers is None else f", {result.registers} registers, {result.spilled} bytes spilled"
        print(f"{result.source}: {'compiles' if result.ok else 'FAILS'} ({result.seconds} s{used})")
        if not result.ok:
            print(result.words)
        for line in dict.fromkeys(
            re.findall(r"^.*(?:Potential Performance Loss|warning).*$", result.words, re.MULTILINE)
        ):
            print(f"  {line.strip()}")
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
