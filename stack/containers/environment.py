"""The variables that compose.yaml reads: the user's settings, and what `make up` works out of this machine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from loadgen.machine import format_cpus
from loadgen.settings import Settings
from stack.cpus import CpuPlan
from stack.gpu import served_model

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
