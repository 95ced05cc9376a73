"""Alert rules: valid, tested both ways, about metrics that exist, with their meaning for the clinic and a runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.metrics import DECLARED, LABELS

MONITORING = Path(__file__).parents[2] / "monitoring"
RULES = sorted((MONITORING / "alerts").glob("*.yml"))
RECORDING = sorted((MONITORING / "rules").glob("*.yml"))
RULE_TESTS = sorted((MONITORING / "tests").glob("*.yml"))
ALERTS: list[dict[str, Any]] = [
    rule
    for file in RULES
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
RECORDED: list[dict[str, Any]] = [
    rule
    for file in RECORDING
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
AIRFLOW = {
    mapping["name"]
    for mapping in yaml.safe_load((MONITORING / "statsd_mapping.yml").read_text(encoding="utf-8"))["mappings"]
}
TEST_NAMES = [test["name"] for file in RULE_TESTS for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]]

#: Words of PromQL as these rules use it.
PROMQL = {"sum", "max", "by", "on", "rate", "increase", "delta", "min_over_time", "time", "absent", "vector"}
PROMQL |= {"and", "or", "unless", "clamp_max", "label_replace", "max_over_time", "offset", "m", "min", "group_left"}
PROMQL |= {"group_right", "topk", "present_over_time"}
#: Prometheus' own series and labels.
PROMETHEUS = {"up", "job", "instance", "ALERTS", "alertname", "alertstate"}

#: Of what is recorded and then matched by label.
RECORDED_LABELS = {
    name: ("scenario", "stage", "needs")
    for name in ("scenario:careloom_ill_dependency:state", "scenario:careloom_oldest_late:age")
}
#: Airflow's own tags of its pools (Airflow 3.3.2).
AIRFLOW_LABELS = {name: ("pool_name",) for name in AIRFLOW if name.startswith("airflow_pool_")}

#: Where runbooks are shown: the installer's external label, else the dashboards' placeholder.
RUNBOOK_BASE = '{{ or $externalLabels.runbooks "https://careloom.example/runbooks" }}'

#: Of a runbook, in this order.
HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]

#: Where an expression is: of an alert, or recorded for alerts and dashboards.
each_rule = pytest.mark.parametrize("rule", ALERTS + RECORDED, ids=lambda rule: rule.get("alert") or rule["record"])
each_alert = pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])


def promtool(*arguments: str | Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_takes_the_rules() -> None:
    promtool("check", "rules", *RULES, *RECORDING)


def test_promtool_takes_the_configuration() -> None:
    promtool("check", "config", MONITORING / "prometheus.yml")


@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.stem)
def test_alerts_fire_and_stay_quiet_as_their_tests_say(file: Path) -> None:
    promtool("test", "rules", file)


@each_alert
def test_an_alert_has_a_test_that_it_fires_and_one_that_it_stays_quiet(alert: dict[str, Any]) -> None:
    name = alert["alert"]
    assert any(test.startswith(f"{name} fires ") for test in TEST_NAMES)
    if name != "CareloomWatchdog":  # it never does
        assert any(test.startswith(f"{name} stays quiet ") for test in TEST_NAMES)


@each_rule
def test_a_rule_uses_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    expression = re.sub(r'"[^"]*"|\[[^\]]*\]', "", rule["expr"])
    words = set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", expression))
    series = {name + suffix for name, m in DECLARED.items() for suffix in _suffixes(m.kind)}
    unknown = words - PROMQL - PROMETHEUS - series - set(LABELS) - AIRFLOW - {rule["record"] for rule in RECORDED}
    unknown -= {label for labels in AIRFLOW_LABELS.values() for label in labels}
    assert not unknown
    used = re.findall(r"([\w:]+)\{([^}]*)\}", rule["expr"])
    for name, matchers in used:
        for label in re.findall(r"(\w+)\s*[=!]", matchers):
            assert name == "up" or label in _labels_of(name)


def _labels_of(series: str) -> set[str]:
    if series == "ALERTS":
        return {"alertname", "alertstate", "needs"}
    return set(DECLARED[series].labels) if series in DECLARED else set((RECORDED_LABELS | AIRFLOW_LABELS)[series])


@each_rule
def test_a_rule_reads_alerts_that_exist(rule: dict[str, Any]) -> None:
    names = {alert["alert"] for alert in ALERTS}
    for matched in re.findall(r'alertname=~?"([^"]*)"', rule["expr"]):
        assert set(matched.split("|")) <= names


@each_alert
def test_an_alert_matches_label_values_that_exist(alert: dict[str, Any]) -> None:
    for label, value in re.findall(r'(\w+)="([^"]*)"', alert["expr"]):
        values = LABELS[label][0] if label in LABELS else None
        assert values is None or value in values


def _suffixes(kind: str) -> tuple[str, ...]:
    return ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)


@each_alert
def test_an_alert_says_what_it_is_how_bad_and_for_whom(alert: dict[str, Any]) -> None:
    assert set(alert["annotations"]) == {"summary", "description", "impact", "runbook_url"}
    assert set(alert["labels"]) == {"severity", "component"}
    assert alert["labels"]["severity"] in {"critical", "warning", "none"}
    assert all(text.endswith(".") for key, text in alert["annotations"].items() if key != "runbook_url")
    labels_used = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
    assert labels_used <= set(LABELS) | PROMETHEUS


@each_alert
def test_an_alert_waits_unless_one_occurrence_is_enough(alert: dict[str, Any]) -> None:
    assert "for" in alert or alert["alert"] == "CareloomWatchdog" or "increase(" in alert["expr"]


@each_alert
def test_an_alert_has_a_runbook_that_names_it_and_says_what_to_do(alert: dict[str, Any]) -> None:
    base, _, name = alert["annotations"]["runbook_url"].rpartition("/")
    assert base == RUNBOOK_BASE
    page = MONITORING / "runbooks" / name
    assert page.name == f"{alert['alert']}.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {alert['alert']}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    diagnosis = text.partition("## Diagnosis")[2].partition("## Mitigation")[0]
    assert "```" in diagnosis


def test_runbooks_are_where_the_dashboards_have_them_until_the_installer_says_otherwise() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    boards = (MONITORING / "dashboards" / "grafana.py").read_text(encoding="utf-8")
    [address] = re.findall(r'"(http\S+)" \}\}$', RUNBOOK_BASE)
    assert config["global"]["external_labels"] == {"runbooks": address}
    assert f'"{address}"' in boards
    assert config["alerting"]["alert_relabel_configs"] == [{"regex": "runbooks", "action": "labeldrop"}]


def test_every_runbook_is_of_an_alert() -> None:
    assert {page.stem for page in (MONITORING / "runbooks").glob("*.md")} == {alert["alert"] for alert in ALERTS}


def test_every_job_finds_its_targets_beside_the_configuration() -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))
    for job in config["scrape_configs"]:
        assert job["file_sd_configs"][0]["files"] == [f"targets/{job['job_name']}.json"]
    jobs = {job["job_name"] for job in config["scrape_configs"]}
    assert config["rule_files"] == ["rules/*.yml", "alerts/*.yml"]
    assert set(re.findall(r'job="(\w+)"', " ".join(alert["expr"] for alert in ALERTS))) <= jobs
