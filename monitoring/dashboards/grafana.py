"""A `Board` as the JSON that Grafana 11 imports."""

from __future__ import annotations

import re
from collections.abc import Iterator

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, VisibilityMode, VizOrientation
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from monitoring.dashboards.description import Board, Panel

#: Where Airflow and the runbooks are; a reader changes both at the dashboard's top.
AIRFLOW, RUNBOOKS = "http://127.0.0.1:8080", "https://careloom.example/runbooks"

_PROMETHEUS = DataSourceRef("prometheus", "${datasource}")
_HEIGHT = 8

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
    for row in board.rows:
        made = made.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            made = made.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=1).encode(made.build()) + "\n"


_Variable = dashboard.DatasourceVariable | dashboard.QueryVariable | dashboard.TextBoxVariable


def _variables(board: Board) -> Iterator[_Variable]:
    yield dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus")
    for name, others in (("stage", ""), ("scenario", 'stage=~"$stage"')):
        variable = (
            dashboard.QueryVariable(name)
            .label(name.capitalize())
            .datasource(_PROMETHEUS)
            .query({"query": f"label_values(careloom_scenario_info{{{others}}}, {name})", "refId": name})
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        )
        if name == "stage" or not board.one_scenario:
            everything = VariableOption(True, "All", "$__all")
            variable = variable.multi(True).include_all(True).all_value(".*").current(everything)
        yield variable
    yield dashboard.TextBoxVariable("airflow").label("Airflow").default_value(AIRFLOW)
    yield dashboard.TextBoxVariable("runbooks").label("Runbooks").default_value(RUNBOOKS)


def _panel(panel: Panel) -> _AnyPanel:
    made = _kind(panel)
    made.title(panel.title).description(panel.description).unit(panel.unit)
    made.datasource(_PROMETHEUS).span(panel.width).height(4 if panel.kind == "number" else _HEIGHT).min(0)
    for number, (legend, expression) in enumerate(panel.queries.items()):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + number))
        if panel.kind != "lines":
            query = query.instant()
        if panel.kind == "table":
            query = query.format(PromQueryFormat.TABLE)
        made.with_target(query)
    if panel.runbook:
        url = f"${{runbooks}}/{panel.runbook}.md"
        made.links([dashboard.DashboardLink(f"Runbook: {panel.runbook}").url(url).target_blank(True)])
    if panel.airflow:
        dag = "${airflow}/dags/${__field.labels.scenario}"
        made.data_links(
            [
                dashboard.DashboardLink("DAG in Airflow").url(dag).target_blank(True),
                dashboard.DashboardLink("Its runs in Airflow").url(f"{dag}/runs").target_blank(True),
            ]
        )
    return made


def _kind(panel: Panel) -> _AnyPanel:
    if panel.kind == "number":
        return stat.Panel().orientation(VizOrientation.AUTO)
    if panel.kind == "table":
        return table.Panel()
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    return timeseries.Panel().fill_opacity(10).show_points(VisibilityMode.AUTO).legend(legend.show_legend(True))


def plain(expression: str) -> str:
    """A query as Prometheus itself takes it, with every variable at "all"."""
    text = expression.replace("$__rate_interval", "5m")
    return re.sub(r"\$(scenario|stage)\b", ".*", text)
