"""Declarations: every metric says what it is, in what unit, by labels from the closed list; the docs say the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitoring import metrics
from monitoring.metrics import DECLARED, LABELS, Metric
from monitoring.reference import reference
from pipelines.errors import ErrorClass, PoisonReason
from pipelines.ledger.states import State
from pipelines.ledger.tables import work
from plugins.scenario import Stage

ROOT = Path(__file__).parents[2]

#: What a name may end in: base units, or the plural noun that is counted; `_up` and the other conditions are 0 or 1.
UNITS = ("_seconds", "_bytes", "_items", "_records", "_runs", "_info", "_ratio")
CONDITIONS = {
    "careloom_ledger_up",
    "careloom_switched_off",
    "careloom_dependency_down",
    "careloom_dispatcher_reading_held_back",
    "careloom_dispatcher_scenario_paused",
    "careloom_dispatcher_scenario_not_installed",
}
#: Of folders that only the configuration knows: shown by `monitoring.disks`, with a test of its own.
DISKS = {"careloom_disk_free_bytes", "careloom_disk_size_bytes"}
#: OpenTelemetry's own name; its unit, {token}, is left out by its rules for Prometheus.
OPEN_TELEMETRY = {"gen_ai_client_token_usage"}


@pytest.mark.parametrize("metric", DECLARED.values(), ids=lambda metric: metric.name)
def test_a_metric_has_help_and_a_unit_in_its_name(metric: Metric) -> None:
    assert metric.help.endswith(".")
    assert len(metric.help) > 15 or metric.name == "careloom_build_info"
    if metric.kind == "counter":
        assert metric.name.endswith("_total")
    elif metric.name in CONDITIONS:
        assert metric.kind == "gauge"
    else:
        assert metric.name.endswith(UNITS) or metric.name in OPEN_TELEMETRY


@pytest.mark.parametrize("metric", DECLARED.values(), ids=lambda metric: metric.name)
def test_a_metric_has_labels_of_the_closed_list_only(metric: Metric) -> None:
    assert set(metric.labels) <= set(LABELS)
    assert "le" not in metric.labels


def test_every_label_of_the_list_is_used() -> None:
    used = {label for metric in DECLARED.values() for label in metric.labels} | {"le"}
    assert used == set(LABELS)


@pytest.mark.parametrize(
    ("label", "values"),
    [
        ("error_class", ErrorClass),
        ("poison_reason", PoisonReason),
        ("state", State),
        ("stage", Stage),
    ],
)
def test_a_label_has_the_values_that_the_code_has(
    label: str, values: type[ErrorClass | PoisonReason | State | Stage]
) -> None:
    assert LABELS[label][0] == {member.value for member in values}


def test_every_hop_is_a_time_in_the_ledger() -> None:
    assert {f"{hop}_at" for hop in metrics.HOPS} < set(work.columns.keys())


def test_a_label_outside_the_closed_list_is_refused() -> None:
    with pytest.raises(ValueError, match="closed list"):
        metrics.declare(Metric("careloom_new_total", "counter", "New.", ("patient",), "gateway"))
    assert "careloom_new_total" not in DECLARED


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        metrics.declare(DECLARED["careloom_ledger_up"])


@pytest.mark.parametrize("process", metrics.REGISTRIES)
def test_a_process_shows_its_own_metrics_and_what_it_is(process: metrics.Process) -> None:
    page = generate_latest(metrics.REGISTRIES[process]).decode()
    shown = {family.name for family in text_string_to_metric_families(page)}
    for metric in DECLARED.values():
        if metric.name in metrics.LEDGER or metric.name in DISKS or metric.name == "careloom_build_info":
            continue
        assert (metric.name.removesuffix("_total") in shown) == (metric.process == process), metric.name
    assert f'process="{process}"' in page
    assert "process_resident_memory_bytes" in page
    assert "_created" not in page


def test_expected_sources_stand_at_zero() -> None:
    metrics.expect_sources(["a-ward-of-this-test"])
    page, content_type = metrics.exposition(metrics.GATEWAY)
    assert b'careloom_gateway_events_produced_total{source="a-ward-of-this-test"} 0.0' in page
    assert content_type.startswith("text/plain")


def test_docs_say_what_the_declarations_say() -> None:
    assert (ROOT / "docs/metrics.md").read_text(encoding="utf-8") == reference(), (
        "run: python -m monitoring.reference > docs/metrics.md"
    )
