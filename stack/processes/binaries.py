"""Find Prometheus and Grafana on this machine; fetch Debian's Prometheus into the checkout where apt can."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loadgen.errors import UserError
from loadgen.settings import Paths, Settings
from stack import sources
from stack.commands import say

PROMETHEUS_DOWNLOAD = "https://prometheus.io/download/"
# Where no network is, that is found out soon.
APT_LIMITS = ("-o", "Acquire::http::Timeout=15", "-o", "Acquire::https::Timeout=15", "-o", "Acquire::Retries=0")


@dataclass(frozen=True)
class Grafana:
    """A Grafana server's program and the folder of its own files (conf/, public/)."""

    binary: Path
    home: Path


def _configured(value: str, variable: str) -> Path:
    """The program a variable names. Raises UserError if it is none."""
    found = shutil.which(value)
    if not found:
        raise UserError(f"{variable}={value}: no such program")
    return Path(found).resolve()


def find_prometheus(settings: Settings, paths: Paths) -> Path | None:
    """Prometheus from PROMETHEUS_BIN, else PATH, else the one unpacked in this checkout; None if there is none."""
    if settings.prometheus_bin:
        return _configured(settings.prometheus_bin, "PROMETHEUS_BIN")
    if found := shutil.which("prometheus"):
        return Path(found)
    unpacked = _unpacked(paths)
    return unpacked if unpacked.is_file() else None


def _unpacked(paths: Paths) -> Path:
    return paths.state / "debian" / "usr" / "bin" / "prometheus"


def fetch_prometheus(paths: Paths) -> str | None:
    """Unpack Debian's package into the checkout: no root, nothing installed, no service started.

    Returns why that was not possible, or None once it is there.
    """
    given = sources.prometheus_package()
    if given is None and sources.bundle() is not None:
        return "The bundle holds none: put it on PATH, or set PROMETHEUS_BIN to it."
    if not (shutil.which("dpkg-deb") and (given or shutil.which("apt-get"))):
        return (
            f"Get it from {PROMETHEUS_DOWNLOAD} (on macOS: brew install prometheus) and put it on PATH, "
            "or set PROMETHEUS_BIN to it."
        )
    target = paths.state / "debian"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.state, prefix="apt-") as work:
        say("Prometheus: unpacking Debian's package into .bakeoff/")
        package = given or download_prometheus(Path(work))
        if isinstance(package, str):
            return package
        unpacked = Path(work) / "tree"
        if (failed := _quietly(["dpkg-deb", "-x", str(package), str(unpacked)], Path(work))) is not None:
            return f"unpacking {package.name} failed ({failed})."
        shutil.rmtree(target, ignore_errors=True)
        unpacked.rename(target)
    return None if _unpacked(paths).is_file() else "Debian's package holds no Prometheus."


def download_prometheus(folder: Path) -> Path | str:
    """Fetch Debian's package into a folder; returns why that was not possible in its place."""
    if not shutil.which("apt-get"):
        return "there is no apt-get here"
    failed = _quietly(["apt-get", *APT_LIMITS, "download", "prometheus"], folder)
    packages = list(folder.glob("prometheus_*.deb"))
    if failed is None and packages:
        return packages[0]
    return (
        f"apt-get download prometheus failed ({failed or 'no package came'}): "
        f"run `sudo apt-get update` and try again, or get it from {PROMETHEUS_DOWNLOAD} and set PROMETHEUS_BIN."
    )


def _quietly(command: list[str], cwd: Path) -> str | None:
    """Run a command; None if it succeeded, else the last line it wrote."""
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return None
    lines = (result.stderr or result.stdout).strip().splitlines()
    return lines[-1] if lines else f"exit status {result.returncode}"


def find_grafana(settings: Settings) -> Grafana | None:
    """Grafana from GRAFANA_BIN, else PATH; None if it, or the folder of its own files, is not there."""
    if settings.grafana_bin:
        binary = _configured(settings.grafana_bin, "GRAFANA_BIN")
    else:
        found = shutil.which("grafana") or shutil.which("grafana-server")
        if not found:
            return None
        binary = Path(found).resolve()
    for home in (binary.parent.parent, Path("/usr/share/grafana"), binary.parent.parent / "share" / "grafana"):
        if (home / "conf" / "defaults.ini").is_file():
            return Grafana(binary, home)
    return None
