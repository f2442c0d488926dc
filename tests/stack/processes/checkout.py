"""A checkout of its own for tests that start the stack of plain processes; its Python is that of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from loadgen.hosts.supervisor import SupervisorHost
from loadgen.machine import unused_ports
from stack.processes import strays

HERE = Path(__file__).resolve().parents[3]
PORTS = ("LOCUST", "LOCUST_MASTER", "ENGINE_EXPORTER", "PROMETHEUS", "GRAFANA", "VLLM", "LLAMACPP")
PARTS = ("stack", "loadgen", "exporters", "prometheus", "grafana/provisioning")


class Checkout:
    """Its folder, the environment of its commands, and the ports of its stack by name."""

    def __init__(self, folder: Path, ports: tuple[str, ...] = PORTS, parts: tuple[str, ...] = PARTS) -> None:
        self.folder = folder
        self.state = folder / ".bakeoff"
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("BAKEOFF_")}
        self.ports = dict(zip(ports, unused_ports(len(ports)), strict=True))
        self.environment |= {f"BAKEOFF_{name}_PORT": str(port) for name, port in self.ports.items()}
        self.profile = "cpu"
        """As plain processes; empty: as the machine has it."""
        for name in parts:
            shutil.copytree(HERE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / ".venv" / "bin").mkdir(parents=True)
        # A launcher and not a link: a linked interpreter would not find this environment's packages.
        python = folder / ".venv" / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)

    def run(self, *arguments: str, module: str = "stack") -> subprocess.CompletedProcess[str]:
        """Run a command of the stack, or of another module."""
        if module == "stack" and self.profile and arguments[0] in ("up", "down"):
            arguments = (*arguments, "--runtime", "processes")
        if module == "stack" and self.profile and arguments[0] == "up":
            arguments = (*arguments, "--profile", self.profile)
        return subprocess.run(
            [str(self.folder / ".venv" / "bin" / "python"), "-m", module, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=800,
        )

    def host(self) -> SupervisorHost:
        """The engine host of its stack."""
        return SupervisorHost.of_checkout(self.folder)

    def end(self) -> None:
        """Leave no process."""
        self.run("down")
        strays.end(strays.ours(self.state))
