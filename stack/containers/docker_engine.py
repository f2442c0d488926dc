"""The Docker engine of this machine: where it is, whether it answers, and whether it can give containers a GPU."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import docker
import requests
from docker.context import ContextAPI
from docker.errors import DockerException

ANSWER_LIMIT_S = 15
DEFAULT_HOST = "unix:///var/run/docker.sock"
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class DockerEngine:
    """An engine that answers."""

    host: str
    version: str
    gpu_runtime: bool
    """Whether it can give containers NVIDIA GPUs."""


def engine_address(environ: Mapping[str, str] = os.environ) -> str:
    """Where the engine should be: DOCKER_HOST, else Docker's current context, else the system's socket."""
    if address := environ.get("DOCKER_HOST"):
        return address
    try:
        context = ContextAPI.get_current_context()
        address = context.Host if context else None
    except Exception:  # a broken configuration of Docker's client: its commands will say what is wrong
        address = None
    # The SDK writes the default socket's address in a form of its own.
    return address.replace("http+unix://", "unix://") if address else DEFAULT_HOST


def find_engine(address: str, limit_s: int = ANSWER_LIMIT_S) -> DockerEngine | str:
    """The engine at an address, or why there is none. Each question takes `limit_s` at most."""
    if address.startswith("unix://") and not Path(address.removeprefix("unix://")).exists():
        return f"there is no {address.removeprefix('unix://')}"
    client = None
    try:
        client = docker.DockerClient(base_url=address, timeout=limit_s)
        facts = client.info()
    except (DockerException, requests.RequestException, OSError, ValueError) as error:
        if "permission denied" in str(error).lower():
            return f"this user may not use {address} (is it in the group `docker`?)"
        return f"nothing answers at {address} within {limit_s} s"
    finally:
        if client is not None:
            client.close()
    runtimes = facts.get("Runtimes") or {}
    gpu = "nvidia" in runtimes or shutil.which("nvidia-container-runtime-hook") is not None
    return DockerEngine(address, str(facts.get("ServerVersion", "")), gpu)


def has_nvidia_driver() -> bool:
    """Whether the NVIDIA driver is loaded on this machine."""
    return NVIDIA_DRIVER.exists()
