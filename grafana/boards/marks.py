"""Marks of runs and blocks on every panel over time.

Blocks come of Prometheus, so that they show whoever started them. Runs come of Grafana's own annotations, which the
campaign writes; so do blocks a second time, for when Prometheus has forgotten them: that one is off until switched on.
"""

from __future__ import annotations

from typing import Any

from grafana_foundation_sdk.models import common, dashboard

from grafana.boards.colours import GRAY, MARK
from grafana.boards.queries import BLOCK, ENGINE
from grafana.boards.variables import SOURCE

TAG = "bakeoff"
OWN = common.DataSourceRef(type_val="datasource", uid="grafana")


def marks() -> list[dashboard.AnnotationQuery]:
    """All annotation queries of a board."""
    # Its regions are those in which the expression has a value above zero.
    blocks = dashboard.AnnotationQuery(
        name="Blocks",
        datasource=SOURCE,
        enable=True,
        icon_color=MARK,
        expr=f"max by (run_id, block, engine, cell) (bakeoff_client_block_info{{{BLOCK},{ENGINE}}})",
        step="5s",
        title_format="{{engine}}",
        text_format="{{cell}}, block {{block}} of {{run_id}}",
        tag_keys="engine,cell",
    )
    return [blocks, _written("Runs", "run", shown=True), _written("Blocks, as the campaign wrote them", "block")]


def _written(name: str, tag: str, *, shown: bool = False) -> dashboard.AnnotationQuery:
    target: Any = dashboard.AnnotationTarget(limit=500, match_any=False, tags=[TAG, tag], type_val="tags")
    return dashboard.AnnotationQuery(name=name, datasource=OWN, enable=shown, icon_color=GRAY, target=target)
