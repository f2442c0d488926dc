"""Find a Docker engine and Compose for the tests; install and start them where none is and this user may."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docker.commands import SYSTEM_PATH, EngineError, NoEngineError, program, run, step
from tests.docker.local_engine import LocalEngine, answers

CHECKOUT = Path(__file__).resolve().parents[2]
STATE = CHECKOUT / ".bakeoff" / "docker-tests"
DEFAULT_HOST = "unix:///var/run/docker.sock"
PACKAGES = ("docker.io", "iptables", "iproute2", "debootstrap")
COMPOSE_COMMANDS = (("docker", "compose"), ("docker-compose",))
COMPOSE_LOCK = Path(__file__).parent / "compose.lock"


@dataclass(frozen=True)
class Engine:
    """An engine that answers, and the Compose to use with it."""

    host: str
    compose: tuple[str, ...]

    def environment(self) -> dict[str, str]:
        """This process' environment, so that `docker`, `docker-compose` and SDK clients find the engine."""
        variables = {**os.environ, "DOCKER_HOST": self.host, "PATH": SYSTEM_PATH}
        if len(self.compose) == 1 and Path(self.compose[0]).is_absolute():
            variables["PATH"] = os.pathsep.join((str(Path(self.compose[0]).parent), SYSTEM_PATH))
        return variables


def is_debian_root() -> bool:
    """Whether this user may install Debian's packages here."""
    if sys.platform != "linux" or os.geteuid() != 0 or program("apt-get") is None:
        return False
    return platform.freedesktop_os_release().get("ID") == "debian"


@contextlib.contextmanager
def running_engine(state: Path = STATE) -> Iterator[Engine]:
    """An engine for the duration: the one that answers already, else one that is started here and ended after.

    Raises NoEngineError if there is none and none can be installed, EngineError if installing or starting one failed.
    """
    local = LocalEngine(state)
    host = find_engine(local)
    if host:
        yield Engine(host, find_compose(state))
        return
    require_debian_root()
    host = install_packages()
    if host:
        yield Engine(host, find_compose(state))
        return
    try:
        with step("start dockerd"):
            local.start()
        yield Engine(local.host, find_compose(state))
    finally:
        with step("stop dockerd"):
            local.stop()


def find_engine(local: LocalEngine) -> str | None:
    """The address of an engine that answers: DOCKER_HOST alone if it is set, else the system's, else this checkout's.

    Raises NoEngineError if DOCKER_HOST is set and nothing answers there.
    """
    if host := os.environ.get("DOCKER_HOST"):
        if not answers(host):
            raise NoEngineError(f"DOCKER_HOST={host}: no Docker engine answers there")
        return host
    return next((host for host in (DEFAULT_HOST, local.host) if answers(host)), None)


def require_debian_root() -> None:
    """Raise NoEngineError unless an engine can be installed here."""
    if not is_debian_root():
        raise NoEngineError(
            "no Docker engine answers at DOCKER_HOST or the default socket, and only root on Debian can have one "
            "installed by the tests"
        )


def install_packages() -> str | None:
    """Install Debian's engine and debootstrap. Returns the engine's address if the system started it as a service."""
    with step("install Debian's packages"):
        if all(program(name) for name in ("dockerd", "iptables", "ip", "debootstrap")):
            return None
        install = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
        environment = {"DEBIAN_FRONTEND": "noninteractive"}
        try:
            run(install, env=environment)
        except EngineError:  # with old package lists, or none
            run(["apt-get", "update"])
            run(install, env=environment)
        if not Path("/run/systemd/system").is_dir():
            return None
        deadline = time.monotonic() + 120
        while not answers(DEFAULT_HOST) and time.monotonic() < deadline:
            time.sleep(0.5)
        return DEFAULT_HOST if answers(DEFAULT_HOST) else None


def find_compose(state: Path = STATE) -> tuple[str, ...]:
    """Compose 2 or newer: the plugin, else the program on PATH, else the locked release, installed below `state`."""
    own = state / "compose" / "bin" / "docker-compose"
    for command in (*COMPOSE_COMMANDS, (str(own),)):
        if _is_compose(command):
            return command
    with step("install Compose"):
        run([sys.executable, "-m", "venv", "--clear", own.parents[1]])
        pip: list[str | Path] = [
            own.parent / "python",
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
        ]
        run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", COMPOSE_LOCK])
    if not _is_compose((str(own),)):
        raise EngineError(f"{own} does not run")
    return (str(own),)


def _is_compose(command: tuple[str, ...]) -> bool:
    """Whether the command is there and is not Compose 1, which knows neither `--wait` nor profiles in full."""
    try:
        result = subprocess.run(
            [*command, "version", "--short"],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": SYSTEM_PATH},
        )
    except OSError:
        return False
    major = result.stdout.strip().removeprefix("v").partition(".")[0]
    return result.returncode == 0 and major.isdigit() and int(major) >= 2
