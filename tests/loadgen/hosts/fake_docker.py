"""A Docker engine in memory, as far as the engine host asks one. Containers do what their `story` says when started."""

from __future__ import annotations

import builtins
import copy
import datetime
from collections.abc import Callable, Sequence
from typing import Any

from docker.errors import APIError, ImageNotFound

NEVER = "0001-01-01T00:00:00Z"
IMAGE = {
    "RepoDigests": ["example.org/vllm@sha256:" + "ab" * 32],
    "Created": "2026-01-01T00:00:00Z",
    "Config": {"Env": ["PATH=/usr/bin", "LANG=C.UTF-8"]},
}


def attributes(service: str, project: str = "bakeoff", **labels: str) -> dict[str, Any]:
    """What `docker inspect` tells of a container that was made and not started."""
    return {
        "Id": f"id-{service}",
        "Image": "sha256:" + "cd" * 32,
        "Path": "/launch",
        "Args": ["--model", "m", "--api-key", "hunter2", "--max-tokens=64"],
        "RestartCount": 0,
        "State": {
            "Status": "created",
            "ExitCode": 0,
            "OOMKilled": False,
            "Error": "",
            "StartedAt": NEVER,
            "FinishedAt": NEVER,
            "Health": {"Status": "starting", "Log": []},
        },
        "Config": {
            "Image": "example.org/vllm:1.0",
            "Env": ["PATH=/usr/bin", "LANG=C.UTF-8", "HF_TOKEN=hunter2", "OMP_NUM_THREADS=2"],
            "User": "10001:10001",
            "Labels": {
                "com.docker.compose.project": project,
                "com.docker.compose.service": service,
                "com.docker.compose.oneoff": "False",
                "bakeoff.engine": "vllm",
                "bakeoff.port": "8000",
                "bakeoff.model": "m",
                "bakeoff.api": "completions",
                "bakeoff.start-limit-s": "20",
                **labels,
            },
        },
        "HostConfig": {
            "PortBindings": {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8101"}]},
            "Memory": 8 * 2**30,
            "NanoCpus": 1_500_000_000,
            "CpusetCpus": "0-1",
            "ShmSize": 67108864,
            "PidsLimit": 512,
            "IpcMode": "private",
            "ReadonlyRootfs": True,
            "DeviceRequests": [
                {"Driver": "nvidia", "Count": 0, "DeviceIDs": ["1"], "Capabilities": [["gpu"]], "Options": {}}
            ],
        },
        "Mounts": [
            {"Type": "bind", "Source": "/models", "Destination": "/models", "RW": False},
            {"Type": "volume", "Name": "bakeoff_hub", "Source": "/x", "Destination": "/hub", "RW": True},
        ],
    }


class FakeContainer:
    def __init__(self, engine: FakeEngine, attrs: dict[str, Any]) -> None:
        self.engine = engine
        self.live = attrs
        self.attrs = attrs
        self.story: list[Callable[[FakeContainer], None]] = []
        """What happens while it runs, one step each time the engine is asked for the container."""
        self.log: list[tuple[float, str]] = []
        self.record = b""
        self.calls: list[str] = []
        self.refuses: str | None = None

    @property
    def name(self) -> str:
        return str(self.live["Config"]["Labels"]["com.docker.compose.service"])

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.live["Config"]["Labels"])

    @property
    def status(self) -> str:
        return str(self.live["State"]["Status"])

    def say(self, line: str) -> None:
        self.log.append((self.engine.now, line))

    def run(self) -> None:
        """Its process begins, by whose will ever."""
        self.live["State"] |= {"Status": "running", "StartedAt": self.engine.moment(), "ExitCode": 0}
        self.live["State"]["Health"] = {"Status": "starting", "Log": []}

    def healthy(self) -> None:
        self.live["State"]["Health"] = {"Status": "healthy", "Log": [{"ExitCode": 0, "Output": "fine"}]}

    def unhealthy(self, output: str = "") -> None:
        self.live["State"]["Health"] = {"Status": "unhealthy", "Log": [{"ExitCode": 1, "Output": output}]}

    def end(self, code: int = 0, *, oom: bool = False) -> None:
        state = {"Status": "exited", "ExitCode": code, "OOMKilled": oom, "FinishedAt": self.engine.moment()}
        self.live["State"] |= state

    def restart_by_policy(self, code: int = 1) -> None:
        self.end(code)
        self.live["RestartCount"] += 1
        self.run()

    def start(self) -> None:
        self.calls.append("start")
        if self.refuses:
            raise APIError("500 Server Error", explanation=self.refuses)
        self.live["RestartCount"] = 0
        self.live["State"]["OOMKilled"] = False
        self.run()

    def stop(self, timeout: int) -> None:
        self.calls.append(f"stop within {timeout}")
        self.end(143)

    def logs(self, tail: int, since: float = 0.0) -> bytes:
        lines = [text for at, text in self.log if at >= since]
        return "\n".join(lines[-tail:]).encode()

    def exec_run(self, command: Sequence[str]) -> tuple[int, bytes]:
        self.calls.append(" ".join(command))
        return (0, self.record) if self.record else (1, b"cat: no such file")


class FakeEngine:
    """Has the parts of `docker.DockerClient` that the host uses. A second passes with every question."""

    def __init__(self, *services: str, **labels: str) -> None:
        self.now = 1_800_000_000.0
        self.gone: Exception | None = None
        self.all = [FakeContainer(self, attributes(service, **labels)) for service in services]
        self.image: dict[str, Any] | None = IMAGE
        self.containers = self.images = self

    def __getitem__(self, service: str) -> FakeContainer:
        return next(each for each in self.all if each.name == service)

    def moment(self) -> str:
        return datetime.datetime.fromtimestamp(self.now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"

    def list(self, *, all: bool, ignore_removed: bool, filters: dict[str, list[str]]) -> list[FakeContainer]:
        if self.gone:
            raise self.gone
        assert all and ignore_removed
        self.now += 1.0
        found = []
        for container in self.all:
            labels = container.labels
            pairs = [wanted.partition("=") for wanted in filters["label"]]
            if builtins.all(k in labels and (not eq or labels[k] == v) for k, eq, v in pairs):
                if container.story and container.status not in ("created", "exited"):
                    container.story.pop(0)(container)
                container.attrs = copy.deepcopy(container.live)
                found.append(container)
        return found

    def get(self, image: str) -> Any:
        if self.image is None:
            raise ImageNotFound("404")
        return type("Image", (), {"attrs": self.image})()

    def version(self) -> dict[str, str]:
        return {"Version": "28.0"}
