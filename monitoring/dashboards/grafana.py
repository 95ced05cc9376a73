"""A `Board` as the JSON that Grafana 11 imports."""

from __future__ import annotations

import re
from collections.abc import Iterator

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as dashboard_models
from grafana_foundation_sdk.models.common import (
    BigValueGraphMode,
    GraphThresholdsStyleMode,
    LegendDisplayMode,
    LegendPlacement,
    VisibilityMode,
    VizOrientation,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    VariableHide,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring.dashboards.description import Board, Panel

#: Where Airflow and the runbooks are; a reader changes both at the dashboard's top.
AIRFLOW, RUNBOOKS = "http://127.0.0.1:8080", "https://careloom.example/runbooks"

#: Of Airflow's list of runs: those with this `run_after`.
_THIS_TIME = "run_after_gte=${__from:date:iso}&run_after_lte=${__to:date:iso}"

_PROMETHEUS = DataSourceRef("prometheus", "${datasource}")
_HEIGHT = 8

_Link = Builder[dashboard_models.DashboardLink]
_AnyPanel = timeseries.Panel | stat.Panel | table.Panel


def as_json(board: Board) -> str:
    """The dashboard's JSON text."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["careloom"])
        .refresh("30s")
        .time("now-1h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(dashboard.DashboardLink("careloom").type(DashboardLinkType.DASHBOARDS).tags(["careloom"]).keep_time(True))
    )
    for variable in _variables(board):
        made = made.with_variable(variable)
    number = 0
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            number += 1
            made = made.with_panel(_panel(panel, number, one_scenario=board.one_scenario))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


_Variable = dashboard.DatasourceVariable | dashboard.QueryVariable | dashboard.TextBoxVariable


def _variables(board: Board) -> Iterator[_Variable]:
    yield dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    asked = " ".join(expression for panel in board.panels for expression in panel.queries.values())
    # also scenarios that are no longer installed and have work left
    of = '{__name__=~"careloom_scenario_info|careloom_work_items", stage=~"$stage"}'
    for name, series in (("stage", "careloom_scenario_info"), ("scenario", of)):
        variable = (
            dashboard.QueryVariable(name)
            .label(name.capitalize())
            .datasource(_PROMETHEUS)
            .query({"query": f"label_values({series}, {name})", "refId": name})
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
        if name == "stage" or not board.one_scenario:
            everything = VariableOption(True, "All", "$__all")
            # without a value of its own "All" is the list, which the chosen stage makes shorter
            variable = variable.multi(True).include_all(True).current(everything)
        if "$scenario" not in asked and "$stage" not in asked:  # nothing that it shows is of a scenario
            variable = variable.hide(VariableHide.HIDE_VARIABLE)
        yield variable
    yield dashboard.TextBoxVariable("airflow").label("Airflow").default_value(AIRFLOW)
    yield dashboard.TextBoxVariable("runbooks").label("Runbooks").default_value(RUNBOOKS)


def _panel(panel: Panel, number: int, *, one_scenario: bool) -> _AnyPanel:
    made = _kind(panel).id(number)
    made.title(panel.title).description(panel.description).unit(panel.unit)
    made.datasource(_PROMETHEUS).span(panel.width).height(4 if panel.kind == "number" else panel.height).min(0)
    made.thresholds(_thresholds(panel.red_below, panel.red_from, "text" if panel.kind == "table" else "green"))
    if panel.decimals is not None or panel.words:
        made.decimals(panel.decimals or 0)
    if panel.words:
        shown = {str(value): dashboard_models.ValueMappingResult(text=text) for value, text in panel.words.items()}
        made.mappings([dashboard_models.ValueMap(shown)])
    for at, (legend, expression) in enumerate(panel.queries.items()):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(_letter(at))
        if panel.kind != "lines":
            query = query.instant()
        if panel.kind == "table":
            query = query.format(PromQueryFormat.TABLE)
        made.with_target(query)
    links = [_link(f"Runbook: {alert}", f"${{runbooks}}/{alert}.md") for alert in panel.all_runbooks]
    if panel.airflow:
        label = "dag_id" if any("{{dag_id}}" in legend for legend in panel.queries) else "scenario"
        made.data_links(_to_airflow(f"__field.labels.{label}" if panel.kind != "table" else f"__data.fields.{label}"))
    elif one_scenario and any("$scenario" in expression for expression in panel.queries.values()):
        links += _to_airflow("scenario")
    if links:
        made.links(links)
    return made


def _link(title: str, url: str) -> _Link:
    return dashboard.DashboardLink(title).url(url).target_blank(True)


def _to_airflow(variable: str) -> list[_Link]:
    """To a scenario's DAG, its runs, and those that were to start in the time that the dashboard shows.

    As Airflow 3.3's UI has its addresses; no metric names a run, so that none grows with the number of runs.

    Args:
        variable: Grafana's, that is the DAG's id.
    """
    dag = f"${{airflow}}/dags/${{{variable}}}"
    return [
        _link("DAG in Airflow", dag),
        _link("Its runs in Airflow", f"{dag}/runs"),
        _link("Its runs of this time in Airflow", f"{dag}/runs?{_THIS_TIME}"),
    ]


def _letter(at: int) -> str:
    return chr(ord("A") + at)


def _thresholds(below: float | None, over: float | None, usual: str = "green") -> dashboard.ThresholdsConfig:
    """Green, and red where it is wrong."""
    steps = [dashboard_models.Threshold(None, usual if below is None else "red")]
    if below is not None:
        steps.append(dashboard_models.Threshold(below, usual))
    if over is not None:
        steps.append(dashboard_models.Threshold(over, "red"))
    return dashboard.ThresholdsConfig().mode(dashboard_models.ThresholdsMode.ABSOLUTE).steps(steps)


def _kind(panel: Panel) -> _AnyPanel:
    if panel.kind == "number":
        newest = common.ReduceDataOptions().calcs(["lastNotNull"])
        return stat.Panel().orientation(VizOrientation.AUTO).reduce_options(newest).graph_mode(BigValueGraphMode.NONE)
    if panel.kind == "table":
        return _table(panel)
    many = panel.width >= 12 and any("{{" in legend for legend in panel.queries)
    legend = common.VizLegendOptions().show_legend(True)
    if many:  # their newest values beside their names, the largest first
        legend = legend.display_mode(LegendDisplayMode.TABLE).placement(LegendPlacement.RIGHT)
        legend = legend.calcs(["lastNotNull", "max"]).sort_by("Max").sort_desc(True)
    else:
        legend = legend.display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    made = timeseries.Panel().fill_opacity(0).line_width(2).show_points(VisibilityMode.AUTO).legend(legend)
    if panel.red_from is not None:
        made = made.thresholds_style(common.GraphThresholdsStyleConfig().mode(GraphThresholdsStyleMode.DASHED))
    usual = 0.1 if panel.unit in ("ops", "reqps", "percentunit") else 1
    return made.axis_soft_max(usual if panel.at_least is None else panel.at_least)


def _property(name: str, value: object) -> dashboard_models.DynamicConfigValue:
    return dashboard_models.DynamicConfigValue(name, value)


#: What a reader of a table does not ask for.
_HIDDEN = ("Time", "__name__", "instance", "job", "alertstate", "component")
#: Columns that need more room than the others, in pixels.
_WIDE = {"scenario": 220, "alertname": 270}


def _table(panel: Panel) -> table.Panel:
    """One row for each set of labels; columns are headed by the queries' legends."""
    several = len(panel.queries) > 1
    values = {f"Value #{_letter(at)}" if several else "Value": name for at, name in enumerate(panel.queries)}
    made = table.Panel()
    if several:
        made = made.with_transformation(dashboard_models.DataTransformerConfig("merge", options={}))
    options = {
        "excludeByName": dict.fromkeys(_HIDDEN, True),
        "renameByName": values,
        "indexByName": {name: 50 + at for at, name in enumerate(values)},
    }
    made = made.with_transformation(dashboard_models.DataTransformerConfig("organize", options=options))
    for column, pixels in _WIDE.items():
        made = made.override_by_name(column, [_property("custom.width", pixels)])
    for column, unit in panel.units.items():
        made = made.override_by_name(column, [_property("unit", unit)])
    for column, over in panel.red.items():
        coloured = _property("custom.cellOptions", {"type": "color-text"})
        made = made.override_by_name(
            column, [_property("thresholds", _thresholds(None, over, "text").build()), coloured]
        )
    if any("ALERTS" in expression for expression in panel.queries.values()):
        runbook = {"title": "Runbook", "url": "${runbooks}/${__data.fields.alertname}.md", "targetBlank": True}
        made = made.override_by_name("alertname", [_property("links", [runbook])])
        runs = [
            {"title": link.title, "url": link.url, "targetBlank": True}
            for link in (made.build() for made in _to_airflow("__data.fields.scenario"))
        ]
        made = made.override_by_name("scenario", [_property("links", runs)])
    if panel.sort_by:
        made = made.sort_by([common.TableSortByFieldState().display_name(panel.sort_by).desc(True)])
    return made


def plain(expression: str) -> str:
    """A query as Prometheus itself takes it, with every variable at "all"."""
    text = expression.replace("$__rate_interval", "5m")
    return re.sub(r"\$(scenario|stage)\b", ".*", text)
