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

from loadgen.boards.catalogue.queries import BLOCK, CHOICES, ENGINE, EVERYTHING, INFO
from loadgen.boards.colours import BAD, GOOD, GRAY, KNOWN, MARK
from loadgen.boards.model import GRID_COLUMNS, Board, Choice, Panel

PanelBuilder = timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel | statetimeline.Panel
SOURCE = enums.DataSourceRef(type_val="prometheus", uid="${datasource}")
"""The data source of the variable `datasource`: provisioning resolves no `${DS_...}` of an exported board."""
OWN = enums.DataSourceRef(type_val="datasource", uid="grafana")
TAG = "bakeoff"
LINE_WIDTH = 2


def dashboard_json(board: Board, boards: Sequence[Board]) -> str:
    """The text of a board's file; `boards` are all, which it links to. Raises ValueError if a row leaves a gap."""
    source = build.DatasourceVariable("datasource").label("Data source").type("prometheus")
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
        .variables([source, *map(_variable, CHOICES)])
        .links([_link(other) for other in boards])
        .build()
    )
    built.annotations = dashboard.AnnotationContainer(list_val=_marks())
    built.panels = _place(board)
    document = json.loads(JSONEncoder().encode(built))
    for part in (*document["links"], *document["annotations"]["list"]):
        del part["placement"]  # the SDK puts them into a menu; without it they stand above the panels
    return json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def _variable(choice: Choice) -> build.QueryVariable:
    order = dashboard.VariableSort.ALPHABETICAL_DESC if choice.newest_first else dashboard.VariableSort.ALPHABETICAL_ASC
    query = f"label_values({choice.selector}, {choice.label})"
    builder = (
        build.QueryVariable(choice.name)
        .label(choice.title)
        .datasource(SOURCE)
        .query({"query": query, "refId": f"variable-{choice.name}"})
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(order)
        .include_all(True)
        .all_value(EVERYTHING)
        .current(dashboard.VariableOption(selected=True, text="All", value="$__all"))
    )
    return builder.multi(True) if choice.several else builder


def _link(board: Board) -> build.DashboardLink:
    """Time range and choices go along."""
    link = build.DashboardLink(board.title).type(dashboard.DashboardLinkType.LINK).url(f"/d/{board.uid}")
    return link.tooltip(board.about).icon("dashboard").keep_time(True).include_vars(True)


def _marks() -> list[dashboard.AnnotationQuery]:
    """Marks of runs and blocks on every panel over time.

    Blocks come of Prometheus, so that they show whoever started them. Runs come of Grafana's own annotations, which the
    campaign writes; so do blocks a second time, for when Prometheus has forgotten them: off until switched on.
    """
    # Its regions are those in which the expression has a value above zero.
    blocks = dashboard.AnnotationQuery(
        name="Blocks",
        datasource=SOURCE,
        enable=True,
        icon_color=MARK.dark,
        expr=f"max by (run_id, block, engine, cell) ({INFO}{{{BLOCK},{ENGINE}}})",
        step="5s",
        title_format="{{engine}}",
        text_format="{{cell}}, block {{block}} of {{run_id}}",
        tag_keys="engine,cell",
    )
    return [blocks, _written("Runs", "run", shown=True), _written("Blocks, as the campaign wrote them", "block")]


def _written(name: str, tag: str, *, shown: bool = False) -> dashboard.AnnotationQuery:
    target: Any = dashboard.AnnotationTarget(limit=500, match_any=False, tags=[TAG, tag], type_val="tags")
    return dashboard.AnnotationQuery(name=name, datasource=OWN, enable=shown, icon_color=GRAY.dark, target=target)


def _place(board: Board) -> list[dashboard.Panel | dashboard.RowPanel]:
    """Rows and panels with their places on the grid."""
    parts: list[tuple[build.Row | PanelBuilder, dashboard.GridPos]] = []
    top = 0
    for row in board.rows:
        heading = build.Row(row.title).collapsed(False)
        parts.append((heading, dashboard.GridPos(h=1, w=GRID_COLUMNS, x=0, y=top)))
        top += 1
        placed = row.placed()
        for panel, place in placed:
            position = dashboard.GridPos(h=place.height, w=place.width, x=place.x, y=top + place.y)
            parts.append((_draw(panel), position))
        top += max(place.y + place.height for _, place in placed)
    return [part.id(number).grid_pos(place).build() for number, (part, place) in enumerate(parts, 1)]


def _draw(panel: Panel) -> PanelBuilder:
    """The panel without its place."""
    builder = _KINDS[panel.kind](panel)
    builder.title(panel.title).description(panel.about).datasource(SOURCE).unit(panel.unit).no_value(panel.no_data)
    builder.color_scheme(build.FieldColor().mode(dashboard.FieldColorModeId("palette-classic-by-name")))
    if panel.decimals is not None:
        builder.decimals(panel.decimals)
    if panel.minimum is not None and panel.kind not in ("table", "state-timeline"):
        builder.min(panel.minimum)
    if panel.maximum is not None:
        builder.max(panel.maximum)
    steps = [dashboard.Threshold(value=None, color=GOOD.dark)]
    if panel.bad_from is not None:
        steps.append(dashboard.Threshold(value=panel.bad_from, color=BAD.dark))
    builder.thresholds(build.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps))
    if panel.states:
        builder.mappings([_states(panel)])
    # The tone for dark pages: Grafana is dark unless told otherwise.
    for engine, colour in KNOWN.items():
        builder.override_by_regexp(series_of(engine), [_colour(colour.dark)])
    for name in panel.gray:
        builder.override_by_name(name, [_colour(GRAY.dark)])
    for letter, query in panel.lettered():
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter).datasource(SOURCE)
        target.format(PromQueryFormat.TABLE if panel.kind == "table" else PromQueryFormat.TIME_SERIES)
        builder.with_target(target.instant() if query.instant else target.range())
    return builder


def series_of(engine: str) -> str:
    """Grafana's regular expression for an engine's series: its name, alone or before a separator."""
    return rf"/^{engine}( · .*)?$/"


def _colour(colour: str) -> dashboard.DynamicConfigValue:
    return dashboard.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": colour})


def _states(panel: Panel) -> dashboard.ValueMap:
    """Zero is gray; what else there is has its engine's colour if it is a turn, else that of what is bad."""
    options: dict[str, dashboard.ValueMappingResult] = {}
    for index, (value, text) in enumerate(sorted(panel.states.items())):
        colour = GRAY.dark if value == 0 else BAD.dark if panel.bad_from is not None else None
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
        builder.thresholds_style(common.GraphThresholdsStyleConfig().mode(enums.GraphThresholdsStyleMode.DASHED))
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
