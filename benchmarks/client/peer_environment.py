"""Each peer's own Python environment, made once below `.bakeoff/` and kept until its requirements change."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loadgen.errors import UserError
from loadgen.machine import ROOT as CHECKOUT
from loadgen.settings import Paths
from stack.commands import failure, need_disk, run_logged, say
from stack.setup import NETWORK_ADVICE, TORCH, ensure_venv, install_torch, supported

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


class Environment(ABC):
    """A Python that has a peer installed."""

    @abstractmethod
    def ensure(self) -> Path:
        """Return the interpreter, made if need be. Raises UserError: it cannot be had here, and why."""


@dataclass(frozen=True)
class OwnEnvironment(Environment):
    """Bakeoff's own."""

    def ensure(self) -> Path:
        """The interpreter that runs this."""
        return Path(sys.executable)


@dataclass(frozen=True)
class EngineEnvironment(Environment):
    """The one that an engine runs in as a plain process."""

    engine: str

    def ensure(self) -> Path:
        """Make it as `python -m stack setup` does, without the model."""
        if reason := supported(self.engine):
            raise UserError(reason)
        paths = Paths(CHECKOUT)
        ensure_venv(paths, self.engine)
        return paths.engine_python(self.engine)


@dataclass(frozen=True)
class PeerEnvironment(Environment):
    """One from `requirements/NAME.txt`."""

    name: str
    gigabytes: float
    """Disk that it takes."""
    newest: bool = False
    """Needs a Python newer than Bakeoff's oldest."""
    torch: bool = False
    """Needs torch; its CPU build will do."""

    def ensure(self) -> Path:
        """Make it with venv and pip, unless it is there and of the present requirements."""
        requirements = REQUIREMENTS / f"{self.name}.txt"
        base = _interpreter((3, 12)) if self.newest else Path(getattr(sys, "_base_executable", sys.executable))
        venv, log = STATE / self.name, STATE / f"{self.name}.log"
        python, stamp = venv / "bin" / "python", venv / "bakeoff.stamp"
        # Its scripts name the interpreter by its path: one that was moved is made anew.
        made_of = f"{requirements.read_text(encoding='utf-8')}\n{TORCH if self.torch else ''}\n{base}\n{venv}"
        key = hashlib.sha256(made_of.encode()).hexdigest()
        if stamp.is_file() and stamp.read_text(encoding="utf-8") == key and python.exists():
            return python
        need_disk(STATE, self.gigabytes, f"setting up {self.name}")
        say(f"{self.name}: making its environment, once (details in {log.relative_to(CHECKOUT)})")
        shutil.rmtree(venv, ignore_errors=True)
        log.unlink(missing_ok=True)
        if not run_logged([str(base), "-m", "venv", str(venv)], what="venv", log=log):
            raise failure("Making a Python environment", log, "On Debian and Ubuntu: sudo apt install python3-venv.")
        pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
        if self.torch:
            install_torch([*pip, "--no-deps"], log)
        if not run_logged([*pip, "-r", str(requirements)], what=f"installing {self.name}", log=log):
            raise failure(f"Installing {self.name}", log, NETWORK_ADVICE)
        stamp.write_text(key, encoding="utf-8")
        return python


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of the packages that an interpreter has."""
    command = [str(python), "-c", _VERSIONS, *packages]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    told: dict[str, str] = json.loads(found.stdout)
    return told


def _interpreter(oldest: tuple[int, int]) -> Path:
    """A Python of at least this version: our own, one on PATH, or one that pyenv has. Raises UserError."""
    if sys.version_info >= oldest:
        return Path(getattr(sys, "_base_executable", sys.executable))
    for path in _candidates(oldest[1]):
        code = f"import sys, venv, ensurepip; sys.exit(sys.version_info < {oldest})"
        try:
            done = subprocess.run([path, "-c", code], capture_output=True, check=False, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return path
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
