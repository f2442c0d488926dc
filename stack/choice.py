"""Choose runtime and profile. Pure functions of what was found on the machine."""

from __future__ import annotations

from dataclasses import dataclass

from loadgen.errors import UserError

RUNTIMES = ("docker", "processes")
PROCESS_PROFILES = ("gpu", "cpu")
OLD_NAME = "embedded"


@dataclass(frozen=True)
class Found:
    """What this machine has."""

    no_docker: str
    """Why containers cannot be used, in a few words; empty if they can."""
    gpu_driver: bool = False
    gpu_runtime: bool = False
    gpus: str = ""
    """The GPUs that the driver tells plain processes of, in words; empty if there are none."""
    no_gpu: str = "no NVIDIA driver here"
    """Why there are none, or why no engine could use them; empty if one can."""


@dataclass(frozen=True)
class Choice:
    """A runtime, a profile, and the reason for both in words."""

    runtime: str
    profile: str
    reason: str


def check_runtime(runtime: str) -> str:
    """The runtime that was named, if any. Raises UserError for one that there is not."""
    if runtime == OLD_NAME:
        raise UserError(f"RUNTIME={OLD_NAME} is now called RUNTIME=processes")
    if runtime not in ("", *RUNTIMES):
        raise UserError(f"unknown runtime {runtime!r}: there are {', '.join(RUNTIMES)}")
    return runtime


def choose(found: Found, *, runtime: str = "", profile: str = "", running: str = "") -> Choice:
    """Choose.

    Args:
        found: what this machine has.
        runtime: `docker` or `processes` if the user said so.
        profile: the profile if the user said so.
        running: the runtime of the stack that this checkout has up; empty if none.

    Raises:
        UserError: what was asked for cannot be had.
    """
    check_runtime(runtime)
    if running and runtime and runtime != running:
        raise UserError(f"this checkout's stack is up as {_words(running)}: run `make down` before RUNTIME={runtime}")
    if runtime == "docker" and found.no_docker:
        raise UserError(f"RUNTIME=docker, and {found.no_docker}")
    chosen = runtime or running or ("processes" if found.no_docker else "docker")
    if chosen == "processes":
        return _processes(found, runtime, profile, running)
    reason = "RUNTIME=docker" if runtime else "they are up" if running else "a Docker engine and Compose answer"
    if profile:
        return Choice("docker", profile, f"containers ({reason}), profile {profile} (as asked)")
    if found.gpu_driver and found.gpu_runtime:
        return Choice("docker", "gpu", f"containers ({reason}), profile gpu (an NVIDIA driver and container runtime)")
    lacks = "Docker has no NVIDIA runtime" if found.gpu_driver else "no NVIDIA driver here"
    return Choice("docker", "cpu", f"containers ({reason}), profile cpu ({lacks})")


def _processes(found: Found, runtime: str, profile: str, running: str) -> Choice:
    if profile and profile not in PROCESS_PROFILES:
        why = "was asked for" if runtime else "is what runs" if running else f"is all there is: {found.no_docker}"
        raise UserError(f"PROFILE={profile} is for containers, and the stack as plain processes {why}")
    if profile == "gpu" and not found.gpus and not running:
        raise UserError(f"PROFILE=gpu, and {found.no_gpu}")
    reason = "RUNTIME=processes" if runtime else "they are up" if running else found.no_docker
    known = profile or ("gpu" if found.gpus and not found.no_gpu else "cpu")
    why = "as asked" if profile else found.gpus if known == "gpu" else found.no_gpu
    return Choice("processes", known, f"plain processes ({reason}), profile {known} ({why})")


def _words(runtime: str) -> str:
    return "containers" if runtime == "docker" else "plain processes"
