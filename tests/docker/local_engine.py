"""A Docker engine started by hand as root, with its own folders, and ended so that nothing of it stays but its images.

Images and build caches live in `<checkout>/.bakeoff/docker-tests/data`; all that ends with the engine is in one
folder below /run, whose path is short enough for sockets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import docker
import psutil
import requests

from stack.processes import strays
from tests.docker import host_traces
from tests.docker.commands import SYSTEM_PATH, EngineError
from tests.docker.host_traces import HostTraces

START_LIMIT_S = 300
STOP_LIMIT_S = 60


def answers(host: str) -> bool:
    """Whether a Docker engine answers at this address (`unix://...` or `tcp://...`)."""
    try:
        client = docker.DockerClient(base_url=host, timeout=5)
    except (docker.errors.DockerException, OSError, ValueError):
        return False
    with contextlib.closing(client):
        try:
            return bool(client.ping())
        except (docker.errors.DockerException, requests.RequestException, OSError):
            return False


@dataclass(frozen=True)
class LocalEngine:
    """The engine of one checkout. `state` is the checkout's folder for the docker tier."""

    state: Path

    @property
    def folder(self) -> Path:
        """Where what ends with the engine lies."""
        return Path("/run") / f"bakeoff-docker-{hashlib.sha256(bytes(self.state.resolve())).hexdigest()[:8]}"

    @property
    def data(self) -> Path:
        """Images and build caches, kept between runs."""
        return self.state.resolve() / "data"

    @property
    def host(self) -> str:
        """The address for DOCKER_HOST."""
        return f"unix://{self.folder / 'docker.sock'}"

    @property
    def log(self) -> Path:
        return self.state / "dockerd.log"

    def process(self) -> psutil.Process | None:
        """The live dockerd of this checkout, if there is one."""
        try:
            process = psutil.Process(int((self.folder / "dockerd.pid").read_text()))
            ours = process.name() == "dockerd" and str(self.folder) in " ".join(process.cmdline())
        except (OSError, ValueError, psutil.Error):
            return None
        return process if ours else None

    def start(self) -> None:
        """Start dockerd and wait until it answers.

        Raises EngineError if another dockerd runs on this machine (two would rewrite each other's packet filter), or
        if this one does not come up; its last log lines are in the message then.
        """
        self.stop()  # one that was killed, or that hangs
        others = [
            process.pid
            for process in psutil.process_iter(["name", "status"])
            if process.info["name"] == "dockerd" and process.info["status"] != psutil.STATUS_ZOMBIE
        ]
        if others:
            raise EngineError(
                f"a Docker engine of another owner runs here (process {others[0]}): set DOCKER_HOST to it, or stop it"
            )
        self.data.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700)
        (self.folder / "before.json").write_text(host_traces.observe().to_json())
        config = self.folder / "daemon.json"
        config.write_text(json.dumps(self._config()))
        with self.log.open("wb") as log:
            # In a session of its own, so that Ctrl-C ends the tests and the tests end the engine.
            started = subprocess.Popen(
                ["dockerd", "--config-file", str(config)],
                env={**os.environ, "PATH": SYSTEM_PATH},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_LIMIT_S
        while not answers(self.host):
            if started.poll() is not None or time.monotonic() > deadline:
                ended = f"ended with status {started.returncode}" if started.poll() is not None else "does not answer"
                tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
                self.stop()
                raise EngineError(f"dockerd {ended}; the end of {self.log}:\n{tail}")
            time.sleep(0.2)
        self.wipe()

    def _config(self) -> dict[str, object]:
        # An own file, because dockerd refuses options that a site's /etc/docker/daemon.json sets as well.
        return {
            "hosts": [self.host],
            "group": "root",
            "data-root": str(self.data),
            "exec-root": str(self.folder / "exec"),
            "pidfile": str(self.folder / "dockerd.pid"),
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "shutdown-timeout": 15,
        }

    def wipe(self) -> None:
        """Remove every container, network and volume: each session starts from images alone."""
        with contextlib.closing(docker.DockerClient(base_url=self.host)) as client:
            for container in client.containers.list(all=True, ignore_removed=True):
                container.remove(force=True, v=True)
            client.networks.prune()
            for volume in client.volumes.list():
                volume.remove(force=True)

    def stop(self) -> None:
        """End the engine and all that it ran, and take back what it changed on the host. Does nothing twice.

        Raises EngineError naming what is left.
        """
        if not self.folder.exists():
            return
        dockerd = self.process()
        if dockerd and answers(self.host):
            self.wipe()
        left = strays.end([dockerd] if dockerd else [], patience_s=STOP_LIMIT_S)
        # It has ended the others, unless it was killed.
        left += strays.end(self._processes())
        if left:
            raise EngineError(f"the engine's processes did not end: {[process.pid for process in left]}")
        self._clean_up()

    def _processes(self) -> list[psutil.Process]:
        """dockerd, containerd, the shims of containers, and what runs in these."""
        before = self._before()
        contained = host_traces.contained(before) if before else set()
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                named = process.name() in ("dockerd", "containerd") or process.name().startswith("containerd-shim")
                if process.pid in contained or (named and str(self.folder) in " ".join(process.cmdline())):
                    found.append(process)
        return found

    def _before(self) -> HostTraces | None:
        try:
            return HostTraces.from_json((self.folder / "before.json").read_text())
        except FileNotFoundError:
            return None

    def _clean_up(self) -> None:
        if before := self._before():
            below = (self.folder, self.data)
            host_traces.restore(before, below)
            left = host_traces.differences(before, host_traces.observe())
            left += [f"mount {point}" for point in host_traces.mounts(below)]
            if left:
                raise EngineError("the engine left on this host: " + "; ".join(left))
        shutil.rmtree(self.folder)
