"""Marks of runs and blocks on every panel over time.

Blocks come of Prometheus, so that they show whoever started them. Runs come of Grafana's own annotations, which the
campaign writes; so do blocks a second time, for when Prometheus has forgotten them: that one is off until switched on.
"""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common, dashboard

from grafana.boards.colours import GRAY, MARK
from grafana.boards.queries import BLOCK, ENGINE
from grafana.boards.variables import SOURCE

TAG = "bakeoff"
OWN = common.DataSourceRef(type_val="datasource", uid="grafana")


class PrometheusMarks(dashboard.AnnotationQuery):
    """An annotation query with the fields of Grafana's Prometheus data source, which the SDK's own type lacks."""

    def to_json(self) -> dict[str, object]:
        """All fields; the regions are those in which the expression has a value above zero."""
        return {
            **super().to_json(),
            "step": "5s",
            "titleFormat": "{{engine}}",
            "textFormat": "{{cell}}, block {{block}} of {{run_id}}",
            "tagKeys": "engine,cell",
        }


def marks() -> list[dashboard.AnnotationQuery]:
    """All annotation queries of a board."""
    blocks = PrometheusMarks(
        name="Blocks",
        datasource=SOURCE,
        enable=True,
        icon_color=MARK,
        expr=f"max by (run_id, block, engine, cell) (bakeoff_client_block_info{{{BLOCK},{ENGINE}}})",
    )
    return [blocks, _written("Runs", "run", shown=True), _written("Blocks, as the campaign wrote them", "block")]


def _written(name: str, tag: str, *, shown: bool = False) -> dashboard.AnnotationQuery:
    target = build.AnnotationTarget().tags([TAG, tag]).match_any(False).type("tags").limit(500)
    query = build.AnnotationQuery().name(name).datasource(OWN).enable(shown).icon_color(GRAY).target(target)
    return query.build()
