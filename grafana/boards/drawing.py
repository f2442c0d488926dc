"""A board as Grafana's classic dashboard JSON, through the types of Grafana's own foundation SDK."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as enums
from grafana_foundation_sdk.models import dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.boards.board import GRID_COLUMNS, Board, Panel
from grafana.boards.colours import BAD, ENGINE_COLOURS, GOOD, GRAY, series_of
from grafana.boards.links import links
from grafana.boards.marks import TAG, marks
from grafana.boards.variables import SOURCE, variables

PanelBuilder = timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel | statetimeline.Panel
LINE_WIDTH = 2


def dashboard_json(board: Board, boards: Sequence[Board]) -> str:
    """The text of a board's file; `boards` are all, which it links to. Raises ValueError if a row leaves a gap."""
    built = (
        build.Dashboard(board.title)
        .uid(board.uid)
        .description(board.about)
        .tags([TAG])
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time("now-30m", "now")
        .refresh("5s")
        .timezone("browser")
        .variables(list(variables()))
        .links(list(links(boards)))
        .build()
    )
    built.annotations = dashboard.AnnotationContainer(list_val=marks())
    built.panels = _place(board)
    document = json.loads(JSONEncoder().encode(built))
    for part in (*document["links"], *document["annotations"]["list"]):
        del part["placement"]  # the SDK puts them into a menu; without it they stand above the panels
    return json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def _place(board: Board) -> list[dashboard.Panel | dashboard.RowPanel]:
    """Rows and panels with their places on the grid: left to right, a new line where one is full."""
    placed: list[dashboard.Panel | dashboard.RowPanel] = []
    number = y = 0
    for row in board.rows:
        number += 1
        heading = build.Row(row.title).id(number).collapsed(False)
        placed.append(heading.grid_pos(dashboard.GridPos(h=1, w=GRID_COLUMNS, x=0, y=y)).build())
        y += 1
        x = 0
        for panel in row.panels:
            number += 1
            place = dashboard.GridPos(h=panel.height, w=panel.width, x=x, y=y)
            placed.append(_draw(panel).id(number).grid_pos(place).build())
            x += panel.width
            if x == GRID_COLUMNS:
                x, y = 0, y + panel.height
        if x:
            raise ValueError(f"{board.uid}: the panels of row {row.title!r} do not fill {GRID_COLUMNS} columns")
    return placed


def _draw(panel: Panel) -> PanelBuilder:
    """The panel without its place."""
    builder = _KINDS[panel.kind](panel)
    builder.title(panel.title).description(panel.about).datasource(SOURCE).unit(panel.unit).no_value(panel.no_data)
    builder.color_scheme(build.FieldColor().mode(dashboard.FieldColorModeId("palette-classic-by-name")))
    if panel.decimals is not None:
        builder.decimals(panel.decimals)
    if panel.minimum is not None:
        builder.min(panel.minimum)
    if panel.maximum is not None:
        builder.max(panel.maximum)
    steps = [dashboard.Threshold(value=None, color=GOOD)]
    if panel.bad_from is not None:
        steps.append(dashboard.Threshold(value=panel.bad_from, color=BAD))
    builder.thresholds(build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.states:
        builder.mappings([_states(panel)])
    for engine, colour in ENGINE_COLOURS.items():
        builder.override_by_regexp(series_of(engine), [_colour(colour)])
    for name in panel.gray:
        builder.override_by_name(name, [_colour(GRAY)])
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter).datasource(SOURCE)
        target.format(PromQueryFormat.TABLE if panel.kind == "table" else PromQueryFormat.TIME_SERIES)
        builder.with_target(target.instant() if query.instant else target.range())
    return builder


def _colour(colour: str) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})


def _states(panel: Panel) -> dashboard.ValueMap:
    """Zero is gray; what else there is has its engine's colour if it is a turn, else that of what is bad."""
    options: dict[str, dashboard.ValueMappingResult] = {}
    for index, (value, text) in enumerate(sorted(panel.states.items())):
        colour = GRAY if value == 0 else BAD if panel.bad_from is not None else None
        options[str(value)] = dashboard.ValueMappingResult(text=text, color=colour, index=index)
    return dashboard.ValueMap(options=options)


def _timeseries(panel: Panel) -> PanelBuilder:
    """Lines; a gap where there is no value, as engines take turns."""
    legend = (
        common.VizLegendOptions()
        .display_mode(enums.LegendDisplayMode.TABLE)
        .placement(enums.LegendPlacement.BOTTOM)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    builder = (
        timeseries.Panel()
        .line_width(LINE_WIDTH)
        .fill_opacity(8)
        .show_points(enums.VisibilityMode.AUTO)
        .point_size(4)
        .span_nulls(False)
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(enums.TooltipDisplayMode.MULTI).sort(enums.SortOrder.DESCENDING))
    )
    if panel.bad_from is not None:
        style = common.GraphThresholdsStyleConfig().mode(enums.GraphThresholdsStyleMode.DASHED)
        builder.thresholds_style(style)
    return builder


def _state_timeline(_: Panel) -> PanelBuilder:
    return (
        statetimeline.Panel()
        .show_value(enums.VisibilityMode.AUTO)
        .merge_values(True)
        .row_height(0.85)
        .fill_opacity(85)
        .line_width(0)
        .legend(common.VizLegendOptions().show_legend(False).display_mode(enums.LegendDisplayMode.HIDDEN))
    )


def _newest() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().values(False).calcs(["lastNotNull"])


def _stat(_: Panel) -> PanelBuilder:
    return (
        stat.Panel()
        .reduce_options(_newest())
        .text_mode(enums.BigValueTextMode.VALUE_AND_NAME)
        .color_mode(enums.BigValueColorMode.NONE)
        .graph_mode(enums.BigValueGraphMode.NONE)
    )


def _bargauge(_: Panel) -> PanelBuilder:
    return (
        bargauge.Panel()
        .reduce_options(_newest())
        .orientation(enums.VizOrientation.HORIZONTAL)
        .display_mode(enums.BarGaugeDisplayMode.BASIC)
        .value_mode(enums.BarGaugeValueMode.TEXT)
        .show_unfilled(False)
    )


def _table(panel: Panel) -> PanelBuilder:
    left_out: dict[str, Any] = {"excludeByName": dict.fromkeys(("Time", *panel.hidden), True)}
    return table.Panel().with_transformation(dashboard.DataTransformerConfig(id_val="organize", options=left_out))


_KINDS = {
    "timeseries": _timeseries,
    "stat": _stat,
    "bargauge": _bargauge,
    "table": _table,
    "state-timeline": _state_timeline,
}
