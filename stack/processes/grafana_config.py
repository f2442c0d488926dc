"""Grafana's settings and provisioning in the stack of plain processes. Pure functions of the stack's settings."""

from __future__ import annotations

import json
from typing import Any

from dotenv import dotenv_values
from ruamel.yaml import YAML

from loadgen.errors import UserError
from loadgen.machine import ROOT
from loadgen.settings import Paths, Settings

BOARDS = "grafana/dashboards"
HOME_BOARD = f"{BOARDS}/bakeoff.json"


def grafana_environment(settings: Settings, paths: Paths) -> dict[str, str]:
    """What may be known to all: supervisord's environment is also that of every engine."""
    return {
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(settings.grafana_port),
        "GF_PATHS_DATA": str(paths.state / "grafana"),
        "GF_PATHS_LOGS": str(paths.state / "grafana" / "logs"),
        "GF_PATHS_PROVISIONING": str(paths.grafana),
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(paths.checkout / HOME_BOARD),
        **{name: value or "" for name, value in dotenv_values(ROOT / "grafana" / "grafana.env").items()},
    }


def render_grafana(settings: Settings, paths: Paths) -> dict[str, str]:
    """The text of each file by its path in `paths.grafana`; the one with the password is for its owner only.

    Raises UserError for a password that Grafana's file cannot hold.
    """
    password = settings.grafana_password
    if '"""' in password or "\n" in password:
        raise UserError("BAKEOFF_GRAFANA_PASSWORD: Grafana takes none with three quotation marks or a line break in it")
    sources, boards = _provisioning("datasources/prometheus.yaml"), _provisioning("dashboards/bakeoff.yaml")
    sources["datasources"][0]["url"] = f"http://127.0.0.1:{settings.prometheus_port}"
    boards["providers"][0]["options"]["path"] = str(paths.checkout / BOARDS)
    return {
        paths.grafana_config.name: f'[security]\nadmin_password = """{password}"""\n',
        # JSON is YAML. Grafana puts variables of the environment in for `$NAME`, and `$` for `$$`.
        "datasources/prometheus.yaml": json.dumps(sources, indent=2).replace("$", "$$"),
        "dashboards/bakeoff.yaml": json.dumps(boards, indent=2).replace("$", "$$"),
    }


def _provisioning(name: str) -> Any:
    """What containers are provisioned with."""
    return YAML(typ="safe").load(ROOT / "grafana" / "provisioning" / name)
