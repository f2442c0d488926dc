"""Small dashboards in Grafana's classic JSON, as Grafana itself would store them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def target(expr: str, ref: str = "A", **more: Any) -> dict[str, Any]:
    return {"datasource": {"type": "prometheus", "uid": "${datasource}"}, "expr": expr, "refId": ref, **more}


def panel(kind: str = "timeseries", title: str = "A panel", *exprs: str, **more: Any) -> dict[str, Any]:
    targets = [target(expr, "ABCDEF"[i], legendFormat="{{engine}}") for i, expr in enumerate(exprs)]
    defaults = more.pop("defaults", {})
    overrides = more.pop("overrides", [])
    return {
        "id": 1,
        "type": kind,
        "title": title,
        "description": f"About {title}.",
        "gridPos": {"x": 0, "y": 0, "w": 12, "h": 8},
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": "s", **defaults}, "overrides": overrides},
        "options": {},
        "pluginVersion": "12.1.1",
        **more,
    }


def override(matcher: str, options: Any, **properties: Any) -> dict[str, Any]:
    return {
        "matcher": {"id": matcher, "options": options},
        "properties": [{"id": key.replace("__", "."), "value": value} for key, value in properties.items()],
    }


def row(title: str, y: int = 0, *inner: dict[str, Any]) -> dict[str, Any]:
    place = {"x": 0, "y": y, "w": 24, "h": 1}
    return {"type": "row", "title": title, "collapsed": bool(inner), "gridPos": place, "panels": list(inner)}


def variable(name: str, query: str = "", **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "query", "query": {"query": query, "refId": f"variable-{name}"}, **more}


def board(*panels: dict[str, Any], variables: tuple[dict[str, Any], ...] = (), **more: Any) -> dict[str, Any]:
    return {
        "uid": "a-board",
        "title": "A board",
        "schemaVersion": 41,
        "panels": list(panels),
        "templating": {"list": list(variables)},
        **more,
    }


def write(folder: Path, document: Any, name: str = "a.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path
