"""Each peer's own Python environment, made once below `.bakeoff/` and kept until its requirements change."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadgen.errors import UserError
from loadgen.machine import ROOT as CHECKOUT
from loadgen.settings import Paths
from stack.setup import BASE_PYTHON, TORCH, ensure_venv, make_venv, supported

STATE = CHECKOUT / ".bakeoff" / "peers"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements"
_VERSIONS = """
import importlib.metadata as m, json, platform, sys
found = {"Python": platform.python_version()}
for name in sys.argv[1:]:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class OwnEnvironment:
    """Bakeoff's own."""

    def ensure(self) -> Path:
        """The interpreter that runs this."""
        return Path(sys.executable)


@dataclass(frozen=True)
class EngineEnvironment:
    """The one that an engine runs in as a plain process."""

    engine: str

    def ensure(self) -> Path:
        """Make it as `python -m stack setup` does, without the model. Raises UserError: it cannot be had here."""
        if reason := supported(self.engine):
            raise UserError(reason)
        paths = Paths(CHECKOUT)
        ensure_venv(paths, self.engine)
        return paths.engine_python(self.engine)


@dataclass(frozen=True)
class PeerEnvironment:
    """One from `requirements/NAME.txt`."""

    name: str
    gigabytes: float
    """Disk that it takes."""
    newest: bool = False
    """Needs a Python newer than Bakeoff's oldest."""
    torch: bool = False
    """Needs torch; its CPU build will do."""

    def ensure(self) -> Path:
        """Make it, unless it is there and of the present requirements. Raises UserError: it cannot be had here."""
        requirements, venv = REQUIREMENTS / f"{self.name}.txt", STATE / self.name
        python = _interpreter((3, 12)) if self.newest else BASE_PYTHON
        make_venv(
            venv,
            # Its scripts name the interpreter by its path: one that was moved is made anew.
            f"{requirements.read_text(encoding='utf-8')}\n{TORCH if self.torch else ''}\n{python}\n{venv}",
            ("-r", str(requirements)),
            title=self.name,
            log=STATE / f"{self.name}.log",
            gigabytes=self.gigabytes,
            torch=self.torch,
            python=python,
        )
        return venv / "bin" / "python"


Environment = OwnEnvironment | EngineEnvironment | PeerEnvironment
"""A Python that has a peer installed; `ensure` returns its interpreter, made if need be."""


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of the packages that an interpreter has."""
    command = [str(python), "-c", _VERSIONS, *packages]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    told: dict[str, str] = json.loads(found.stdout)
    return told


def _interpreter(oldest: tuple[int, int]) -> str:
    """A Python of at least this version: our own, one on PATH, or one that pyenv has. Raises UserError."""
    if sys.version_info >= oldest:
        return BASE_PYTHON
    for path in _candidates(oldest[1]):
        code = f"import sys, venv, ensurepip; sys.exit(sys.version_info < {oldest})"
        try:
            done = subprocess.run([path, "-c", code], capture_output=True, check=False, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return str(path)
    wanted = ".".join(map(str, oldest))
    raise UserError(f"it needs Python {wanted} or newer, and there is none on PATH or in ~/.pyenv/versions")


def _candidates(minor: int) -> Iterator[Path]:
    names = [f"3.{number}" for number in range(minor, minor + 4)]
    for name in names:
        if found := shutil.which(f"python{name}"):
            yield Path(found)
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for name in names:
        yield from sorted(root.glob(f"{name}.*/bin/python"))
