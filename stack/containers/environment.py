"""The variables that compose.yaml reads: the user's settings, and what `make up` works out of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from loadgen.errors import UserError
from loadgen.settings import Settings
from stack.cpus import CpuPlan, format_cpus

# Whom our containers run as when root calls: no service runs as root.
SERVICE_USER = (10001, 10001)


def service_user(uid: int, gid: int) -> tuple[int, int]:
    """Whom Locust and the engines run as: the caller, so that the files of runs/ are theirs, but never root."""
    return SERVICE_USER if uid == 0 else (uid, gid)


def compose_environment(
    settings: Settings,
    checkout: Path,
    *,
    cpus: CpuPlan,
    user: tuple[int, int],
    extra: Mapping[str, str],
    environ: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """All variables for Compose: this process', the settings that were given, and `extra`."""
    given = {
        field.alias: str(getattr(settings, name))
        for name, field in type(settings).model_fields.items()
        if field.alias and name in settings.model_fields_set
    }
    return {
        **environ,
        **given,
        "COMPOSE_PROJECT_NAME": settings.project,
        # Ours are given by name; the user's own shell must not add others.
        "COMPOSE_PROFILES": "",
        "COMPOSE_FILE": "",
        "BAKEOFF_UID": str(user[0]),
        "BAKEOFF_GID": str(user[1]),
        "BAKEOFF_RUNS_DIR": str(checkout / settings.runs_dir),
        "BAKEOFF_ENGINE_CPUS": format_cpus(cpus.engine),
        "BAKEOFF_TRAFFIC_CPUS": format_cpus(cpus.traffic),
        **({"BAKEOFF_MODEL_NAME": name} if (name := served_model(settings)) else {}),
        **extra,
    }


def served_model(settings: Settings) -> str:
    """The name under which GPU engines serve their model: as set, else the folder's or the hub model's own."""
    return settings.model_name or Path(settings.model_dir or settings.model).name


def check_gpu_model(settings: Settings, engine: str | None, checkout: Path) -> None:
    """Raise UserError unless there is a model for the GPU engine that is to start."""
    if settings.model_dir:
        folder = checkout / settings.model_dir
        if not (folder / "config.json").is_file():
            raise UserError(f"BAKEOFF_MODEL_DIR={settings.model_dir}: {folder} holds no config.json of a model")
    elif engine == "ksana":
        raise UserError(
            "KsanaLLM serves a folder only: set BAKEOFF_MODEL_DIR in .env to a model folder of this machine"
        )
    elif engine == "vllm" and not settings.model:
        raise UserError(
            "no model is named: set BAKEOFF_MODEL_DIR in .env to a model folder of this machine, or BAKEOFF_MODEL to a "
            "model of the hub (vLLM only), such as Qwen/Qwen2.5-7B-Instruct"
        )
