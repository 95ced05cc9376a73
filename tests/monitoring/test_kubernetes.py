"""What Prometheus Operator is given says what monitoring/ says, and finds the Services that deploy/ has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring import kubernetes

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
MONITORS: list[dict[str, Any]] = list(yaml.safe_load_all(kubernetes.files()["scraping.yaml"]))


@pytest.mark.parametrize("name", kubernetes.files())
def test_the_files_are_as_written_from_their_sources(name: str) -> None:
    assert (kubernetes.TARGET / name).read_text(encoding="utf-8") == kubernetes.files()[name], (
        "run: python -m monitoring.kubernetes"
    )


def test_the_values_for_airflows_chart_are_as_written_from_the_mapping() -> None:
    text = kubernetes.CHART_VALUES.read_text(encoding="utf-8")
    assert text == kubernetes.chart_values(), "run: python -m monitoring.kubernetes"


def test_every_file_is_in_the_kustomization() -> None:
    kustomization = yaml.safe_load((kubernetes.TARGET / "kustomization.yaml").read_text(encoding="utf-8"))
    assert set(kustomization["resources"]) == set(kubernetes.files())


def test_no_rule_is_left_out() -> None:
    rules = yaml.safe_load(kubernetes.files()["rules.yaml"])
    groups = {group["name"]: group for group in rules["spec"]["groups"]}
    for folder in ("rules", "alerts"):
        for file in (kubernetes.MONITORING / folder).glob("*.yml"):
            for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
                assert groups.pop(group["name"]) == group
    assert groups == {}


@pytest.mark.parametrize("monitor", MONITORS, ids=lambda monitor: monitor["metadata"]["name"])
def test_a_monitor_finds_its_service_and_names_the_job_as_the_rules_do(monitor: dict[str, Any]) -> None:
    name = monitor["metadata"]["name"]
    assert monitor["spec"]["endpoints"][0]["relabelings"] == [{"targetLabel": "job", "replacement": name}]
    if name == "airflow":
        pytest.skip("the Service of Airflow's chart is not in deploy/")
    documents = yaml.safe_load_all((KUBERNETES / f"{name}.yaml").read_text(encoding="utf-8"))
    [service] = [document for document in documents if document["kind"] == "Service"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}
