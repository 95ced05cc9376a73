"""Dashboards: JSON and source agree, each query is PromQL over metrics that exist, and each metric has its place."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.metrics import DECLARED, Metric

pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is a development dependency")
promql = pytest.importorskip("promql_parser", reason="promql-parser is a development dependency")

from monitoring.dashboards.__main__ import BOARDS, JSON  # noqa: E402
from monitoring.dashboards.description import Board, Panel  # noqa: E402
from monitoring.dashboards.grafana import as_json, plain  # noqa: E402

MONITORING = Path(__file__).parents[2] / "monitoring"

#: vLLM's own, of those worth a panel (vLLM 0.32).
VLLM_COUNTERS_AND_GAUGES = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
    "vllm:generation_tokens_total",
    "vllm:num_preemptions_total",
}
VLLM_HISTOGRAMS = {
    "vllm:time_to_first_token_seconds",
    "vllm:inter_token_latency_seconds",
    "vllm:request_queue_time_seconds",
    "vllm:e2e_request_latency_seconds",
}
#: Made by Prometheus itself.
PROMETHEUS = {"up", "ALERTS"}

PANELS = [pytest.param(panel, id=f"{board.uid}: {panel.title}") for board in BOARDS for panel in board.panels]
each_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
each_panel = pytest.mark.parametrize("panel", PANELS)


def rules(folder: str) -> list[dict[str, Any]]:
    files = sorted((MONITORING / folder).glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def of_histogram(name: str) -> set[str]:
    return {f"{name}_{part}" for part in ("bucket", "sum", "count")}


def series_of(metric: Metric) -> set[str]:
    return of_histogram(metric.name) if metric.kind == "histogram" else {metric.name}


def airflow_series() -> Iterator[str]:
    mappings = yaml.safe_load((MONITORING / "statsd_mapping.yml").read_text(encoding="utf-8"))["mappings"]
    for mapping in mappings:
        observed = mapping.get("match_metric_type") == "observer"
        yield from of_histogram(mapping["name"]) if observed else {mapping["name"]}


def selected(expression: str) -> dict[str, set[str]]:
    """Metric -> the labels that its matchers name."""
    found: dict[str, set[str]] = {}
    for name, _, matchers in re.findall(r"\b([a-z][a-zA-Z0-9_:]*|ALERTS)(\{([^}]*)\})?(?!\s*\()", _bare(expression)):
        if "_" in name or name in PROMETHEUS:
            found.setdefault(name, set()).update(re.findall(r"(\w+)\s*[=!]", matchers))
    return found


def _bare(expression: str) -> str:
    """Without strings, and functions' and groupings' words."""
    expression = re.sub(r'"[^"]*"', "", expression)
    return re.sub(r"\b(by|on|group_left|ignoring|without)\s*\([^)]*\)|\w+\s*(?=\()|\[[^\]]*\]", " ", expression)


def drawn(board: Board) -> list[dict[str, Any]]:
    """The panels of a board as Grafana gets them, in the board's order."""
    panels = json.loads(as_json(board))["panels"]
    flat = [inner for panel in panels for inner in (panel, *panel.get("panels", ()))]
    return [panel for panel in flat if panel["type"] != "row"]


@each_board
def test_the_json_that_grafana_imports_is_what_its_source_says(board: Board) -> None:
    assert (JSON / f"{board.uid}.json").read_text(encoding="utf-8") == as_json(board), (
        "run: python -m monitoring.dashboards"
    )


def test_every_json_file_is_of_a_source() -> None:
    assert {file.stem for file in JSON.glob("*")} == {board.uid for board in BOARDS}


@each_board
def test_a_dashboard_lets_its_reader_choose_stage_and_scenario(board: Board) -> None:
    variables = {one["name"]: one for one in json.loads(as_json(board))["templating"]["list"]}
    assert {"datasource", "stage", "scenario", "airflow", "runbooks"} == set(variables)
    assert variables["scenario"].get("multi", False) is not board.one_scenario


@each_board
def test_all_scenarios_are_those_of_the_chosen_stage(board: Board) -> None:
    """Were "All" `.*`, a chosen stage would change no query that asks the scenario alone."""
    variables = {one["name"]: one for one in json.loads(as_json(board))["templating"]["list"]}
    assert "allValue" not in variables["scenario"]
    assert 'stage=~"$stage"' in variables["scenario"]["query"]["query"]
    assert variables["scenario"].get("includeAll", False) is not board.one_scenario


@each_board
def test_a_choice_is_offered_where_a_query_heeds_it(board: Board) -> None:
    variables = {one["name"]: one for one in json.loads(as_json(board))["templating"]["list"]}
    asked = [expression for panel in board.panels for expression in panel.queries.values()]
    heeded = any("$scenario" in expression or "$stage" in expression for expression in asked)
    for name in ("stage", "scenario"):
        assert (variables[name].get("hide", 0) == 2) is not heeded
    assert heeded is (board.uid != "careloom-delivery")


@each_panel
def test_every_query_parses(panel: Panel) -> None:
    for expression in panel.queries.values():
        promql.parse(plain(expression))


@each_panel
def test_every_query_names_metrics_and_labels_that_exist(panel: Panel) -> None:
    declared = {series: metric for metric in DECLARED.values() for series in series_of(metric)}
    others = {*VLLM_COUNTERS_AND_GAUGES, *PROMETHEUS, *airflow_series(), *(rule["record"] for rule in rules("rules"))}
    others |= {series for name in VLLM_HISTOGRAMS for series in of_histogram(name)}
    for expression in panel.queries.values():
        found = selected(expression)
        assert found
        for name, labels in found.items():
            assert name in declared or name in others
            if name in declared:
                assert labels <= {*declared[name].labels, "le"}


@each_panel
def test_a_panel_says_how_to_read_it_and_its_links_lead_somewhere(panel: Panel) -> None:
    assert panel.description.endswith(".")
    assert panel.width in (4, 8, 12, 16, 24)
    for alert in panel.all_runbooks:
        assert (MONITORING / "runbooks" / f"{alert}.md").exists()
    by = [*panel.queries] if panel.kind != "table" else [*panel.queries.values()]
    named = any(re.search(r"\{\{(scenario|dag_id)\}\}|by \(scenario", one) for one in by)
    assert panel.airflow is named, "series of a scenario, or of a DAG, lead to its runs in Airflow"


@each_board
def test_links_to_runbooks_and_to_airflow_stand_in_the_json(board: Board) -> None:
    text = as_json(board)
    for panel in board.panels:
        for alert in panel.all_runbooks:
            assert f"${{runbooks}}/{alert}.md" in text
    shown = re.findall(r"\$\{airflow\}/dags/\$\{([\w.]+)\}/runs", text)
    assert {"__field.labels", "__data.fields"} & {of.rpartition(".")[0] for of in shown} or not any(
        panel.airflow for panel in board.panels
    )


@each_board
def test_a_link_to_runs_is_for_one_dag_and_has_the_time_that_is_looked_at(board: Board) -> None:
    """Where a panel has no series of a scenario, and its board is of one, the board's own is meant."""
    for panel, shown in zip(board.panels, drawn(board), strict=True):
        links = [*shown.get("links", ()), *shown["fieldConfig"]["defaults"].get("links", ())]
        to = [link["url"] for link in links if "${airflow}" in link["url"]]
        queries = " ".join(panel.queries.values())
        if panel.airflow:
            label = "dag_id" if "{{dag_id}}" in " ".join(panel.queries) else "scenario"
            dag = f"${{airflow}}/dags/${{__data.fields.{label}}}"
            dag = dag if panel.kind == "table" else dag.replace("__data.fields", "__field.labels")
        else:
            dag = "${airflow}/dags/${scenario}" if board.one_scenario and "$scenario" in queries else ""
        time = "run_after_gte=${__from:date:iso}&run_after_lte=${__to:date:iso}"
        assert to == ([dag, f"{dag}/runs", f"{dag}/runs?{time}"] if dag else [])


def test_an_alert_of_a_scenario_leads_to_its_runs() -> None:
    [firing] = [panel for board in BOARDS for panel in drawn(board) if panel.get("title") == "Firing"]
    [links] = [
        one["value"]
        for override in firing["fieldConfig"]["overrides"]
        if override["matcher"]["options"] == "scenario"
        for one in override["properties"]
        if one["id"] == "links"
    ]
    assert [link["url"].partition("?")[0] for link in links] == [
        f"${{airflow}}/dags/${{__data.fields.scenario}}{page}" for page in ("", "/runs", "/runs")
    ]


def test_airflow_has_the_pages_that_links_lead_to() -> None:
    """By the address book of the UI that is installed here: a release that moves them is noticed."""
    package = importlib.util.find_spec("airflow")
    if package is None or not package.submodule_search_locations:
        pytest.skip("Airflow is not installed")
    assets = Path(package.submodule_search_locations[0]) / "ui" / "dist" / "assets"
    text = "".join(file.read_text(encoding="utf-8") for file in assets.glob("index-*.js"))
    assert text, f"no UI in {assets}"
    for part in ("dags/:dagId", "run_after_gte", "run_after_lte"):
        assert f"`{part}`" in text
    [children] = re.findall(r"children:\[((?:(?!children).)*)\],element:[^[\]]{1,40},path:`dags/:dagId`", text)
    assert "path:`runs`" in children


def read_by(expression: str) -> set[str]:
    """The metrics that a query reads, also those that a rule records for it; of a histogram its name."""
    recorded = {rule["record"]: rule["expr"] for rule in rules("rules")}
    found: set[str] = set()
    queue = [*selected(expression)]
    while queue:
        name = queue.pop()
        if name in recorded and name not in found:
            queue += selected(recorded[name])
        found.add(name)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found} - {"ALERTS"}


@each_panel
def test_a_panel_whose_metric_an_alert_reads_leads_to_that_alerts_runbook(panel: Panel) -> None:
    shown = {metric for expression in panel.queries.values() for metric in read_by(expression)}
    alerts = {rule["alert"] for rule in rules("alerts") if read_by(rule["expr"]) & shown}
    assert not alerts or alerts & {*panel.all_runbooks}


def test_the_panels_without_a_runbook_are_those_that_the_page_says_what_to_do_about() -> None:
    page = (MONITORING.parent / "docs" / "dashboards.md").read_text(encoding="utf-8")
    section = page.partition("## Panels without a runbook")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| (\w[\w ]*?): ([^|]+?) \|", section, re.MULTILINE))
    without = {
        (board.title.removeprefix("careloom · "), panel.title)
        for board in BOARDS
        for panel in board.panels
        if not panel.all_runbooks
    }
    assert told == without


def test_every_alert_is_linked_from_a_panel_or_shown_by_one() -> None:
    linked = {alert for board in BOARDS for panel in board.panels for alert in panel.all_runbooks}
    unlinked = {rule["alert"] for rule in rules("alerts")} - linked
    assert unlinked == {
        "CareloomScenarioPaused",  # shown by "Paused, not installed"
        "CareloomAirflowMetricsDown",  # shown by "Processes"
        "CareloomAirflowDagProcessorDown",  # shown by "Heartbeats", as the next
        "CareloomAirflowTriggererDown",
    }


@pytest.mark.parametrize("metric", DECLARED.values(), ids=lambda metric: metric.name)
def test_a_metric_has_its_place_on_a_dashboard_or_in_an_alert(metric: Metric) -> None:
    shown = [expression for board in BOARDS for panel in board.panels for expression in panel.queries.values()]
    alerted = [rule["expr"] for folder in ("alerts", "rules") for rule in rules(folder)]
    used = {name for expression in (*shown, *alerted) for name in selected(expression)}
    assert series_of(metric) & used, f"{metric.name} is nowhere: put it on a dashboard or in an alert, or remove it"


def test_grafana_is_told_where_the_dashboards_and_prometheus_are() -> None:
    folder = MONITORING / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "careloom.yml").read_text(encoding="utf-8"))
    assert [one["type"] for one in sources["datasources"]] == ["prometheus"]
    providers = yaml.safe_load((folder / "dashboards" / "careloom.yml").read_text(encoding="utf-8"))
    assert providers["providers"][0]["type"] == "file"
