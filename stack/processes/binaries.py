"""Find Prometheus and Grafana on this machine; fetch Debian's Prometheus into the checkout where apt can."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from loadgen.errors import UserError
from loadgen.settings import Paths, Settings
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
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return (
            f"Get it from {PROMETHEUS_DOWNLOAD} (on macOS: brew install prometheus) and put it on PATH, "
            "or set PROMETHEUS_BIN to it."
        )
    target = paths.state / "debian"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=paths.state, prefix="apt-") as work:
        say("Prometheus: unpacking Debian's package into .bakeoff/")
        download = _quietly(["apt-get", *APT_LIMITS, "download", "prometheus"], Path(work))
        packages = list(Path(work).glob("prometheus_*.deb"))
        if download is not None or not packages:
            return (
                f"apt-get download prometheus failed ({download or 'no package came'}): "
                f"run `sudo apt-get update` and try again, or get it from {PROMETHEUS_DOWNLOAD} and set PROMETHEUS_BIN."
            )
        unpacked = Path(work) / "tree"
        if (failed := _quietly(["dpkg-deb", "-x", str(packages[0]), str(unpacked)], Path(work))) is not None:
            return f"unpacking {packages[0].name} failed ({failed})."
        shutil.rmtree(target, ignore_errors=True)
        unpacked.rename(target)
    return None if _unpacked(paths).is_file() else "Debian's package holds no Prometheus."


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
