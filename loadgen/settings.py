"""Settings of the stack, from the environment and the `.env` file at the checkout's top, and where its files lie."""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import Field, PrivateAttr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from loadgen.errors import UserError
from loadgen.message import printable

Port = Annotated[int, Field(ge=1024, le=65535)]
PREFIX = "BAKEOFF_"
# Linux allows 107 bytes and macOS 103 for the path of a Unix socket; supervisord binds to PATH.PID first.
SOCKET_PATH_BYTES = 103 - len(".4194304")
ROOM_BYTES = 30
"""Of an engine's own socket below its temporary folder: vLLM names them by a UUID, and needs no suffix."""


OWN_ENGINE = re.compile(r"BAKEOFF_ENGINE_([A-Z][A-Z0-9_]{0,30})_(COMMAND|KIND|PORT|MODEL|GPUS)")
"""A variable of an engine that is started by a command of the user's own."""


def own_variable(engine: str, part: str) -> str:
    """The variable of an engine of the user's own that tells its `part`, such as PORT."""
    return f"{PREFIX}ENGINE_{engine.upper().replace('-', '_')}_{part}"


@dataclass(frozen=True)
class OwnEngine:
    """An engine that is started by a command of the user's own."""

    name: str
    command: str
    """For a shell."""
    kind: str
    port: int
    model: str = ""
    """The name that clients ask for; empty: it is asked."""
    gpus: str = ""

    @property
    def port_variable(self) -> str:
        """The variable of its port."""
        return own_variable(self.name, "PORT")


class Settings(BaseSettings):
    """Every variable that the stack reads. An attribute's alias is its name in the environment and in `.env`."""

    model_config = SettingsConfigDict(frozen=True, case_sensitive=True, env_ignore_empty=True)

    locust_port: Port = Field(8089, alias="BAKEOFF_LOCUST_PORT")
    locust_master_port: Port = Field(5557, alias="BAKEOFF_LOCUST_MASTER_PORT")
    engine_exporter_port: Port = Field(9101, alias="BAKEOFF_ENGINE_EXPORTER_PORT")
    gpu_exporter_port: Port = Field(9102, alias="BAKEOFF_GPU_EXPORTER_PORT")
    ksana_exporter_port: Port = Field(9103, alias="BAKEOFF_KSANA_EXPORTER_PORT")
    prometheus_port: Port = Field(9090, alias="BAKEOFF_PROMETHEUS_PORT")
    grafana_port: Port = Field(3000, alias="BAKEOFF_GRAFANA_PORT")
    vllm_port: Port = Field(8101, alias="BAKEOFF_VLLM_PORT")
    llamacpp_port: Port = Field(8102, alias="BAKEOFF_LLAMACPP_PORT")
    workers: int = Field(1, alias="BAKEOFF_WORKERS", ge=1, le=64)
    context_tokens: int = Field(5120, alias="BAKEOFF_CONTEXT_TOKENS", ge=256, le=32768)
    parallel_sequences: int = Field(16, alias="BAKEOFF_PARALLEL_SEQUENCES", ge=1, le=256)
    engine_start_limit_s: int = Field(600, alias="BAKEOFF_ENGINE_START_LIMIT_S", ge=10)
    vllm_eager: bool = Field(False, alias="BAKEOFF_VLLM_EAGER")
    runs_dir: str = Field("runs", alias="BAKEOFF_RUNS_DIR")
    prometheus_bin: str = Field("", alias="PROMETHEUS_BIN")
    grafana_bin: str = Field("", alias="GRAFANA_BIN")
    grafana_password: str = Field("", alias="BAKEOFF_GRAFANA_PASSWORD")

    allow_env: str = Field("", alias="BAKEOFF_ALLOW_ENV")
    traffic_secret_file: str = Field("", alias="BAKEOFF_TRAFFIC_SECRET_FILE")

    # Containers. Defaults that only compose.yaml needs are in compose.yaml: an empty one here means those.
    runtime: Literal["", "docker", "processes"] = Field("", alias="BAKEOFF_RUNTIME")
    profile: str = Field("", alias="BAKEOFF_PROFILE")
    engines: str = Field("", alias="BAKEOFF_ENGINES")
    project: str = Field("bakeoff", alias="COMPOSE_PROJECT_NAME", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    ksana_port: Port = Field(8103, alias="BAKEOFF_KSANA_PORT")
    vllm_2_port: Port = Field(8121, alias="BAKEOFF_VLLM_2_PORT")
    llamacpp_2_port: Port = Field(8122, alias="BAKEOFF_LLAMACPP_2_PORT")
    ksana_2_port: Port = Field(8123, alias="BAKEOFF_KSANA_2_PORT")
    sglang_port: Port = Field(8104, alias="BAKEOFF_SGLANG_PORT")
    sim_vllm_port: Port = Field(8111, alias="BAKEOFF_SIM_VLLM_PORT")
    sim_ksana_port: Port = Field(8112, alias="BAKEOFF_SIM_KSANA_PORT")
    lan_address: str = Field("", alias="BAKEOFF_LAN_ADDRESS")
    model_dir: str = Field("", alias="BAKEOFF_MODEL_DIR")
    model: str = Field("", alias="BAKEOFF_MODEL")
    model_name: str = Field("", alias="BAKEOFF_MODEL_NAME", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$")
    hf_token_file: str = Field("", alias="BAKEOFF_HF_TOKEN_FILE")
    vllm_python: str = Field("", alias="BAKEOFF_VLLM_PYTHON")
    ksana_home: str = Field("", alias="BAKEOFF_KSANA_HOME")
    ksana_python: str = Field("", alias="BAKEOFF_KSANA_PYTHON")
    sglang_python: str = Field("", alias="BAKEOFF_SGLANG_PYTHON")
    vllm_gpus: str = Field("", alias="BAKEOFF_VLLM_GPUS")
    ksana_gpus: str = Field("", alias="BAKEOFF_KSANA_GPUS")
    vllm_2_gpus: str = Field("", alias="BAKEOFF_VLLM_2_GPUS")
    ksana_2_gpus: str = Field("", alias="BAKEOFF_KSANA_2_GPUS")
    sglang_gpus: str = Field("", alias="BAKEOFF_SGLANG_GPUS")
    gpu_engine_memory: str = Field("", alias="BAKEOFF_GPU_ENGINE_MEMORY")
    cpu_engine_memory: str = Field("", alias="BAKEOFF_CPU_ENGINE_MEMORY")
    gpu_processes: bool = Field(False, alias="BAKEOFF_GPU_PROCESSES")
    shm_size: str = Field("", alias="BAKEOFF_SHM_SIZE")
    python_image: str = Field("", alias="PYTHON_IMAGE")
    prometheus_image: str = Field("", alias="PROMETHEUS_IMAGE")
    grafana_image: str = Field("", alias="GRAFANA_IMAGE")
    vllm_image: str = Field("", alias="VLLM_IMAGE")
    ksana_image: str = Field("", alias="KSANA_IMAGE")
    sglang_image: str = Field("", alias="SGLANG_IMAGE")
    pip_index_url: str = Field("", alias="PIP_INDEX_URL")
    pip_extra_index_url: str = Field("", alias="PIP_EXTRA_INDEX_URL")
    pip_find_links: str = Field("", alias="PIP_FIND_LINKS")
    pip_trusted_host: str = Field("", alias="PIP_TRUSTED_HOST")
    apt_mirror: str = Field("", alias="APT_MIRROR")
    torch_index_url: str = Field("", alias="TORCH_INDEX_URL")
    build_network: str = Field("", alias="BAKEOFF_BUILD_NETWORK")

    _own_engines: tuple[OwnEngine, ...] = PrivateAttr(())

    @field_validator("runtime", mode="before")
    @classmethod
    def _not_by_its_old_name(cls, value: object) -> object:
        if value == "embedded":
            raise ValueError("it is called processes now")
        return value

    @property
    def own_engines(self) -> tuple[OwnEngine, ...]:
        """Engines that commands of the user's own start (plain processes), in the order of their names."""
        return self._own_engines

    def ports(self) -> dict[str, int]:
        """Each port by the variable that changes it."""
        fixed = {
            field.alias: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if field.alias and field.alias.endswith("_PORT")
        }
        return fixed | {engine.port_variable: engine.port for engine in self._own_engines}


def variables() -> list[str]:
    """The names of all variables, in order."""
    return [field.alias for field in Settings.model_fields.values() if field.alias]


def misspelt(environ: Mapping[str, str]) -> list[str]:
    """Of variables that nobody reads and that look like ones that somebody does, one sentence each."""
    strays = [name for name in environ if name.startswith(PREFIX) and not _is_known(name)]
    near = {name: _nearest(name, 0.85) for name in strays}
    return [f"{name} is set, and nothing reads it: did you mean {other}?" for name, other in near.items() if other]


def _is_known(name: str) -> bool:
    return name in variables() or OWN_ENGINE.fullmatch(name) is not None


def _nearest(name: str, least: float = 0.6) -> str | None:
    """The variable most like a name, without what nearly all have in common, or any would be like any."""
    own = {known.removeprefix(PREFIX): known for known in variables()}
    near = difflib.get_close_matches(name.removeprefix(PREFIX), own, n=1, cutoff=least)
    return own[near[0]] if near else None


def check_env_file(path: Path) -> None:
    """Raise UserError, with the line, for what is no `NAME=value` of a variable of ours. No file is an empty one."""
    try:
        bindings = list(parse_stream(io.StringIO(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    for binding in bindings:
        text = binding.original.string
        line = binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")
        if binding.error or (binding.key and binding.value is None):
            raise UserError(f"{path}:{line}: expected NAME=value, found {text.strip()!r}")
        if binding.key and not _is_known(binding.key):
            near = _nearest(binding.key)
            hint = f"did you mean {near}?" if near else f"known are {', '.join(variables())}."
            raise UserError(f"{path}:{line}: unknown variable {binding.key}; {hint}")


def load_settings(checkout: Path) -> Settings:
    """Settings from the environment, then `.env`, then the defaults. Raises UserError naming variable and source."""
    path = checkout / ".env"
    check_env_file(path)
    try:
        settings = Settings(_env_file=path)  # type: ignore[call-arg]  # one of BaseSettings
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        source = "the environment" if os.environ.get(name) else str(path)
        why = first["msg"].removeprefix("Value error, ").lower()
        raise UserError(f"{name}={first['input']!r} (from {source}): {why}") from None
    settings._own_engines = _own_engines({**dotenv_values(path), **{k: v for k, v in os.environ.items() if v}})
    taken: dict[int, str] = {}
    for name, port in settings.ports().items():
        if port in taken:
            raise UserError(f"{name} and {taken[port]} are both {port}: give each a port of its own")
        taken[port] = name
    return settings


def _own_engines(environ: Mapping[str, str | None]) -> tuple[OwnEngine, ...]:
    """The engines that have a command. Raises UserError for one that lacks what it needs."""
    told: dict[str, dict[str, str]] = {}
    for name, value in environ.items():
        found = OWN_ENGINE.fullmatch(name)
        if found and value and name not in variables():
            told.setdefault(found[1], {})[found[2]] = value
    engines = []
    for mark, parts in sorted(told.items()):
        prefix = f"{PREFIX}ENGINE_{mark}"
        if lacking := [f"{prefix}_{part}" for part in ("COMMAND", "KIND", "PORT") if part not in parts]:
            given = ", ".join(f"{prefix}_{part}" for part in parts)
            raise UserError(
                f"{given} is set, and {' and '.join(lacking)} too must be: an engine's command, kind and port"
            )
        port = parts["PORT"]
        if not port.isdecimal() or not 1024 <= int(port) <= 65535:
            raise UserError(f"{prefix}_PORT={port!r} is not a port: give a number from 1024 to 65535")
        name = mark.lower().replace("_", "-").strip("-")
        engines.append(
            OwnEngine(name, parts["COMMAND"], parts["KIND"], int(port), parts.get("MODEL", ""), parts.get("GPUS", ""))
        )
    return tuple(engines)


def load_settings_leniently(checkout: Path) -> Settings:
    """Settings for what must work whatever stands in `.env`, such as taking the stack down.

    Where they are wrong, the defaults, and a warning on stderr.
    """
    try:
        return load_settings(checkout)
    except UserError as error:
        print(printable(f"warning: {error} (going on with the defaults)"), file=sys.stderr)
        return Settings.model_construct()


class Paths:
    """Where things lie in a checkout. All working state is under `.bakeoff/`, which git ignores."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.state = checkout / ".bakeoff"
        """The folder of all working state; also the mark of this checkout's processes."""
        self.traffic_secret = self.state / "traffic-secret"
        """What Locust's master and workers share."""
        self.stack = self.state / "stack"
        """Rendered configuration of the running stack."""
        self.logs = self.state / "logs"
        """One file a process."""
        self.models = self.state / "models"
        """The model, in each engine's form."""
        self.gguf = self.models / "gemma-3-270m-q4_k_m.gguf"
        """The model as llama.cpp serves it."""
        self.hf_model = self.models / "gemma-3-270m-hf"
        """The model as vLLM serves it."""
        self.supervisor_config = self.stack / "supervisord.conf"
        self.supervisor_pid = self.stack / "supervisord.pid"
        self.supervisor_log = self.logs / "supervisord.log"
        self.prometheus_config = self.stack / "prometheus" / "prometheus.yml"
        self.grafana = self.stack / "grafana"
        """Grafana's rendered settings and provisioning."""
        self.grafana_config = self.grafana / "grafana.ini"
        """Grafana's own settings, its password among them."""

    def venv(self, engine: str) -> Path:
        """An engine's own Python environment."""
        return self.state / "venvs" / engine

    def engine_python(self, engine: str) -> Path:
        """The Python of an engine's environment."""
        return self.venv(engine) / "bin" / "python"

    def log(self, program: str) -> Path:
        """The log of one program."""
        return self.logs / f"{program}.log"

    def launch_record(self, engine: str) -> Path:
        """What an engine was last launched with."""
        return self.stack / f"launch-{engine}.json"

    @property
    def socket(self) -> Path:
        """Supervisord's Unix socket: in the state folder, or in a short private one where that path is too long."""
        usual = self.stack / "supervisor.sock"
        return usual if len(os.fsencode(usual)) <= SOCKET_PATH_BYTES else self.short / usual.name

    def temp(self, engine: str) -> Path:
        """An engine's temporary files, which go with it; in the short folder where no socket's path would fit."""
        usual = self.state / "engines" / engine / "tmp"
        return usual if len(os.fsencode(usual)) + ROOM_BYTES <= SOCKET_PATH_BYTES else self.short / engine

    @property
    def short(self) -> Path:
        """A private folder of a short path, in no checkout."""
        mark = hashlib.sha256(os.fsencode(self.checkout)).hexdigest()[:12]
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        for folder in (base, "/tmp"):  # noqa: S108 - private_folder() refuses what others own
            path = Path(folder) / f"bakeoff-{os.getuid()}-{mark}"
            if len(os.fsencode(path / "supervisor.sock")) <= SOCKET_PATH_BYTES:
                break
        return path


def private_folder(path: Path) -> Path:
    """Make a folder that only this user may enter, or check that it is one. Raises UserError if it is another's."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.lstat()
    if path.is_symlink() or status.st_uid != os.getuid():
        raise UserError(f"{path} belongs to someone else: remove it, or set XDG_RUNTIME_DIR to a folder of your own")
    if status.st_mode & 0o077:
        path.chmod(0o700)
    return path


def main_python(checkout: Path) -> str:
    """The Python of our own environment."""
    python = checkout / ".venv" / "bin" / "python"
    return str(python) if python.exists() else sys.executable
