"""What can be chosen in the head of every board."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models import common, dashboard

SOURCE = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
"""The data source of the variable `datasource`: provisioning resolves no `${DS_...}` of an exported board."""
EVERYTHING = ".*"


def variables() -> list[build.DatasourceVariable | build.QueryVariable]:
    """In the order in which they stand; each narrows those after it."""
    source = build.DatasourceVariable("datasource").label("Data source").type("prometheus")
    return [
        source,
        _choice("run", "Run", "label_values(bakeoff_client_block_info, run_id)").sort(
            dashboard.VariableSort.ALPHABETICAL_DESC
        ),
        _choice("scenario", "Scenario", 'label_values(bakeoff_client_block_info{run_id=~"$run"}, scenario)'),
        _choice("cell", "Cell", 'label_values(bakeoff_client_block_info{run_id=~"$run",scenario=~"$scenario"}, cell)'),
        # Engines that run but had no request yet are told by the engine exporter only.
        _choice(
            "engine",
            "Engine",
            'label_values({__name__=~"bakeoff_client_block_info|bakeoff_engine_up"}, engine)',
        ).multi(True),
    ]


def _choice(name: str, label: str, query: str) -> build.QueryVariable:
    return (
        build.QueryVariable(name)
        .label(label)
        .datasource(SOURCE)
        .query({"query": query, "refId": f"variable-{name}"})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .include_all(True)
        .all_value(EVERYTHING)
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )
