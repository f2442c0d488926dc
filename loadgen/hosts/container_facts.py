"""What the Docker engine tells of a container, as the engine host needs it. Pure functions of `docker inspect`."""

from __future__ import annotations

import datetime
import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from loadgen.engines import Api
from loadgen.errors import UserError

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
ONE_OFF_LABEL = "com.docker.compose.oneoff"
KIND_LABEL = "bakeoff.engine"
PORT_LABEL = "bakeoff.port"
MODEL_LABEL = "bakeoff.model"
API_LABEL = "bakeoff.api"
START_LIMIT_LABEL = "bakeoff.start-limit-s"
RECORD_LABEL = "bakeoff.launch-record"
OPTIONAL_LABEL = "bakeoff.optional"

DEFAULT_START_LIMIT_S = 600.0
REDACTED = "[redacted]"
SECRET_NAME = re.compile(r"token(?!i|s)|secret|passw|credential|api[-_]?key|access[-_]?key|private[-_]?key|auth", re.I)
"""Names of variables and options whose values are not written down; `--tokenizer` and `--max-tokens` are none."""
USER_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True)
class ContainerEngine:
    """An engine's container, as its labels and ports describe it."""

    name: str
    kind: str
    model: str | None
    api: Api | None
    inside_url: str
    """Where the stack's own network reaches it: what is measured goes this way."""
    local_url: str
    """Where this machine reaches it, through the port that the container publishes."""
    start_limit_s: float
    launch_record: str | None
    """Path, inside the container, of what its launcher wrote down."""
    gpus: tuple[str, ...] = ()
    """The ids of those that it was given by name."""

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> ContainerEngine:
        """Read an inspected container. Raises UserError where its service lacks a label or a port."""
        labels: Mapping[str, str] = attributes["Config"].get("Labels") or {}
        name = labels[SERVICE_LABEL]
        port = labels.get(PORT_LABEL, "")
        if not port.isdigit():
            raise UserError(f"service {name} in compose.yaml: label {PORT_LABEL} must be the port it serves on")
        api = labels.get(API_LABEL) or None
        if api not in (None, *get_args(Api)):
            raise UserError(
                f"service {name} in compose.yaml: label {API_LABEL} must be one of {', '.join(get_args(Api))}"
            )
        limit = labels.get(START_LIMIT_LABEL) or DEFAULT_START_LIMIT_S
        try:
            limit_s = float(limit)
        except ValueError:
            raise UserError(f"service {name} in compose.yaml: label {START_LIMIT_LABEL} must be seconds") from None
        return cls(
            name=name,
            kind=labels[KIND_LABEL],
            model=labels.get(MODEL_LABEL) or None,
            api=cast("Api | None", api),
            inside_url=f"http://{name}:{port}",
            local_url=_published(name, port, attributes),
            start_limit_s=limit_s,
            launch_record=labels.get(RECORD_LABEL) or None,
            gpus=tuple(gpus_given(attributes["HostConfig"].get("DeviceRequests") or []).get("device_ids", ())),
        )


def _published(name: str, port: str, attributes: Mapping[str, Any]) -> str:
    """The URL of a published port. It is asked for before the container runs, so the port must be a fixed one."""
    bindings = (attributes["HostConfig"].get("PortBindings") or {}).get(f"{port}/tcp") or []
    for binding in bindings:
        if binding.get("HostPort", "").isdigit() and int(binding["HostPort"]) > 0:
            address = binding.get("HostIp") or "127.0.0.1"
            address = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(address, address)  # noqa: S104
            return f"http://{address}:{binding['HostPort']}"
    raise UserError(
        f"service {name} in compose.yaml: port {port} must be published on a fixed port, such as 127.0.0.1:8101:{port}"
    )


@dataclass(frozen=True)
class ContainerState:
    """Whether a container runs, and how its last run ended."""

    status: str
    """created, running, restarting, paused, exited, removing or dead."""
    health: str | None
    """starting, healthy or unhealthy; None without a health check."""
    health_output: str
    """The last line of the last check that failed."""
    exit_code: int
    oom_killed: bool
    error: str
    """Why the Docker engine could not start it."""
    restarts: int
    """How often the Docker engine has started it anew since it was last started on purpose."""
    started_at: str
    finished_at: str
    memory_limit: int = 0
    """Bytes; 0 for none."""

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> ContainerState:
        """Read an inspected container."""
        state = attributes["State"]
        health = state.get("Health") or {}
        said = [str(entry.get("Output", "")).strip() for entry in health.get("Log") or [] if entry.get("ExitCode")]
        word = health.get("Status")
        return cls(
            status=str(state["Status"]),
            health=word if word not in (None, "", "none") else None,
            health_output=said[-1].rpartition("\n")[2] if said else "",
            exit_code=int(state.get("ExitCode") or 0),
            oom_killed=bool(state.get("OOMKilled")),
            error=str(state.get("Error") or ""),
            restarts=int(attributes.get("RestartCount") or 0),
            started_at=str(state.get("StartedAt") or ""),
            finished_at=str(state.get("FinishedAt") or ""),
            memory_limit=int((attributes.get("HostConfig") or {}).get("Memory") or 0),
        )

    @property
    def alive(self) -> bool:
        """Whether it has processes, or is about to have some."""
        return self.status in ("running", "restarting", "paused")

    def how_it_ended(self) -> str:
        """The end of its last run in words."""
        if self.oom_killed:
            limit = f", its container's limit is {self.memory_limit / 2**30:.3g} GiB" if self.memory_limit else ""
            return f"the system killed it for want of memory: OOMKilled{limit}"
        if self.error:
            return self.error
        if self.exit_code > 128:
            try:
                name = signal.Signals(self.exit_code - 128).name
            except ValueError:
                name = "a signal"
            more = ", as the system does when memory runs out" if name == "SIGKILL" else ""
            return f"{name} ended it (exit code {self.exit_code}){more}"
        if self.status == "running":
            return "it ended, and the Docker engine started it anew"
        return f"it ended with exit code {self.exit_code}"


def unix_seconds(moment: str) -> float | None:
    """A moment as the Docker engine writes it (RFC 3339, nanoseconds), as seconds; None for `never` (year 1)."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", moment)
    if found is None or moment.startswith("0001-"):
        return None
    whole = datetime.datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00")).timestamp()
    return whole + float(found[2] or 0)


def container_facts(attributes: Mapping[str, Any], image: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the manifest keeps of an inspected container and its image (None: it was removed). Without secrets.

    `container.environment` holds what the container sets beyond its image, which the image's id covers.
    """
    config, host = attributes["Config"], attributes["HostConfig"]
    image = image or {}
    built_in = set((image.get("Config") or {}).get("Env") or [])
    return {
        "image": {
            "name": config["Image"],
            "id": attributes["Image"],
            "digests": sorted(image.get("RepoDigests") or []),
            "created": image.get("Created"),
        },
        "container": {
            "id": attributes["Id"],
            "argv": redacted_arguments([attributes["Path"], *attributes["Args"]]),
            "environment": redacted_environment(entry for entry in config.get("Env") or [] if entry not in built_in),
            "labels": dict(sorted((config.get("Labels") or {}).items())),
            "mounts": [
                {
                    "type": mount["Type"],
                    "source": mount.get("Name") or mount.get("Source"),
                    "target": mount["Destination"],
                    "read_only": not mount["RW"],
                }
                for mount in attributes.get("Mounts") or []
            ],
            "user": config.get("User") or "root",
            "read_only": bool(host.get("ReadonlyRootfs")),
        },
        "limits": _given(
            memory_bytes=host.get("Memory"),
            cpus=(host.get("NanoCpus") or 0) / 1e9,
            cpuset=host.get("CpusetCpus"),
            shm_bytes=host.get("ShmSize"),
            ipc=host.get("IpcMode"),
            pids=host.get("PidsLimit"),
        ),
        "gpus": gpus_given(host.get("DeviceRequests") or []),
    }


def _given(**values: Any) -> dict[str, Any]:
    """What was set: Docker writes 0 or nothing for what was not."""
    return {name: value for name, value in values.items() if value}


def gpus_given(requests: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The GPUs a container was given: ids, or how many (-1 is all)."""
    given = [each for request in requests for each in request.get("DeviceIDs") or []]
    return _given(
        # Several in one word, as a variable of compose.yaml has them.
        device_ids=[name.strip() for each in given for name in str(each).split(",") if name.strip()],
        count=sum(int(request.get("Count") or 0) for request in requests),
        drivers=sorted({str(request["Driver"]) for request in requests if request.get("Driver")}),
    )


def redacted_environment(entries: Any) -> dict[str, str]:
    """`NAME=value` entries by name, without secrets."""
    pairs = sorted(str(entry).partition("=")[::2] for entry in entries)
    return {name: _redacted(name, value) for name, value in pairs}


def redacted_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line without the values of options that hold secrets (`--api-key X` and `--api-key=X`)."""
    result: list[str] = []
    option = ""
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name.startswith("-") and equals:
            result.append(f"{name}={_redacted(name, value)}")
        else:
            result.append(_redacted(option, argument) if not argument.startswith("-") else argument)
        option = argument if argument.startswith("-") and not equals else ""
    return result


def _redacted(name: str, value: str) -> str:
    if value and SECRET_NAME.search(name):
        return REDACTED
    return USER_IN_URL.sub(f"{REDACTED}@", value)
