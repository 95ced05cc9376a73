"""What Prometheus is shown equals the ledger's rows, at every moment and whatever was killed."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from monitoring import metrics
from monitoring.ledger_collector import LedgerCollector, Objective
from pipelines.errors import ErrorClass
from pipelines.failures.policy import POLICIES
from pipelines.ledger.fold import canonical, fold_all
from pipelines.ledger.snapshot import Snapshot, snapshot

Fill = Callable[..., None]
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]

_HOOK_LABELS = ("hook", "plugin", "scenario")
TRIAGE = Objective("pre_visit.triage", "pre_visit", "1", 60.0)


def scrape(collector: LedgerCollector) -> Series:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(collector)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float | None:
    return series.get((name, frozenset(labels.items())))


def total(series: Series, name: str, **labels: str) -> float:
    return sum(v for (n, found), v in series.items() if n == name and labels.items() <= dict(found).items())


@pytest.fixture
def collector(ledger_engine: Engine) -> LedgerCollector:
    return LedgerCollector(
        lambda: snapshot(ledger_engine), [TRIAGE], {"ward": 30.0}, models={"m": "1"}, servers={"m": "m:8000"}, keep=0.0
    )


def test_counters_equal_the_rows_of_the_ledger(
    ledger_engine: Engine, collector: LedgerCollector, fill_ledger: Fill
) -> None:
    fill_ledger(120)
    fill_ledger(30, state="stale", model=None)
    fill_ledger(7, state="parked")
    fill_ledger(5, state="running", scenario="in_visit.admission_note")
    fold_all(ledger_engine, 50)
    series = scrape(collector)
    triage = {"scenario": "pre_visit.triage", "stage": "pre_visit"}
    finished = "careloom_work_finished_total"
    assert value(series, finished, **triage, state="written", model="smollm2") == 120
    assert value(series, finished, **triage, state="stale", model="none") == 30
    assert value(series, "careloom_work_items", **triage, state="parked") == 7
    assert (
        value(series, "careloom_work_items", scenario="in_visit.admission_note", stage="in_visit", state="running") == 5
    )
    assert total(series, "careloom_hop_duration_seconds_count", hop="written") == 120
    assert total(series, "careloom_event_to_draft_seconds_count") == 120
    assert total(series, "gen_ai_client_operation_duration_seconds_count", gen_ai_request_model="smollm2") == 120
    assert total(series, "careloom_drafts_total", outcome="created") == 300
    assert value(series, "careloom_ledger_records_total", outcome="event") == 162
    assert value(series, "careloom_unaccounted_items") == 0
    assert value(series, "careloom_ledger_up") == 1


def test_buckets_are_cumulative_and_end_in_the_count(
    ledger_engine: Engine, collector: LedgerCollector, fill_ledger: Fill
) -> None:
    fill_ledger(200)
    fold_all(ledger_engine)
    series = scrape(collector)
    buckets = sorted(
        (float(dict(labels)["le"]), found)
        for (name, labels), found in series.items()
        if name == "careloom_event_to_draft_seconds_bucket"
    )
    assert [bound for bound, _ in buckets] == [*metrics.LATENCY_BUCKETS, float("inf")]
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    assert counts[-1] == total(series, "careloom_event_to_draft_seconds_count") == 200
    with ledger_engine.connect() as connection:
        slow = connection.execute(
            text("SELECT count(*) FROM work WHERE written_at - received_at <= interval '10 s'")
        ).scalar_one()
    assert dict(buckets)[10.0] == slow


def test_a_bound_of_an_earlier_release_keeps_its_observations(
    ledger_engine: Engine, collector: LedgerCollector, fill_ledger: Fill
) -> None:
    fill_ledger(4)
    fold_all(ledger_engine)
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE samples SET labels = replace(labels, '\"10.0\"', '\"7.0\"')"))
    series = scrape(collector)
    assert total(series, "careloom_event_to_draft_seconds_bucket", le="7.0") == 4
    assert total(series, "careloom_event_to_draft_seconds_count") == 4


def test_what_is_not_folded_yet_is_named_and_already_accounted_for(
    ledger_engine: Engine, collector: LedgerCollector, fill_ledger: Fill
) -> None:
    fill_ledger(11)
    series = scrape(collector)
    assert value(series, "careloom_work_unfolded_items") == 11
    assert value(series, "careloom_unaccounted_items") == 0
    assert total(series, "careloom_work_finished_total") == 0


def test_a_row_that_vanishes_is_unaccounted_for(
    ledger_engine: Engine, collector: LedgerCollector, fill_ledger: Fill
) -> None:
    fill_ledger(3, state="waiting")
    with ledger_engine.begin() as connection:
        connection.execute(text("DELETE FROM work WHERE id = (SELECT min(id) FROM work)"))
    assert value(scrape(collector), "careloom_unaccounted_items") == 1


def test_the_oldest_unfinished_is_told_by_scenario_and_parked_work_does_not_age(
    ledger_engine: Engine, collector: LedgerCollector, fill_ledger: Fill
) -> None:
    fill_ledger(2, state="parked")
    fill_ledger(2, state="inferred", scenario="in_visit.admission_note")
    series = scrape(collector)
    name = "careloom_oldest_unfinished_age_seconds"
    assert value(series, name, scenario="pre_visit.triage", stage="pre_visit") == 0
    late = value(series, name, scenario="in_visit.admission_note", stage="in_visit")
    assert late is not None
    assert late >= 3600


def test_an_installed_scenario_stands_at_zero_failures_of_each_class_from_the_start(collector: LedgerCollector) -> None:
    series = scrape(collector)
    for error_class in ErrorClass:
        for hop in POLICIES[error_class].hops:
            labels = {"scenario": "pre_visit.triage", "stage": "pre_visit", "error_class": error_class.value}
            assert value(series, "careloom_failures_total", **labels, hop=hop) == 0
    deadline = "careloom_scenario_deadline_seconds"
    assert value(series, deadline, scenario="pre_visit.triage", stage="pre_visit") == 60


def test_failures_switches_and_sources_are_shown(ledger_engine: Engine, collector: LedgerCollector) -> None:
    with ledger_engine.begin() as connection:
        for statement in (
            "INSERT INTO failures VALUES ('pre_visit.triage', 'fhir_rejected', 6, 'written')",
            "INSERT INTO switches VALUES ('model', 'smollm2', 'Dr. Who', 'reasons', now())",
            "INSERT INTO subscriptions VALUES ('ward', 'a', 9, to_timestamp(100), 2, 5)",
            "INSERT INTO subscriptions VALUES ('ward', 'b', 9, to_timestamp(200), 1, 1)",
            "INSERT INTO reconciled VALUES ('ward', to_timestamp(300)), ('no longer configured', to_timestamp(1))",
        ):
            connection.execute(text(statement))
    series = scrape(collector)
    failure = {"scenario": "pre_visit.triage", "stage": "pre_visit", "error_class": "fhir_rejected"}
    assert value(series, "careloom_failures_total", **failure, hop="written") == 6
    assert value(series, "careloom_failures_total", **failure, hop="context") == 0
    assert value(series, "careloom_switched_off", kind="model", target="smollm2") == 1
    assert value(series, "careloom_subscription_gaps_total", source="ward") == 3
    assert value(series, "careloom_subscription_missed_events_total", source="ward") == 6
    assert value(series, "careloom_subscription_last_seen_timestamp_seconds", source="ward") == 200
    assert value(series, "careloom_reconciled_until_timestamp_seconds", source="ward") == 300
    assert value(series, "careloom_reconcile_interval_seconds", source="ward") == 30
    assert total(series, "careloom_reconciled_until_timestamp_seconds") == 300, "the other is not configured"
    assert not any("Dr. Who" in str(key) or "reasons" in str(key) for key in series)


def test_every_declared_metric_of_the_ledger_is_shown(
    ledger_engine: Engine, collector: LedgerCollector, fill_ledger: Fill
) -> None:
    fill_ledger(6)
    fill_ledger(1, state="waiting")
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE work SET rules_written_at = started_at"))
        tallies = {
            "asked": {"m": dict(requests=1, prompt_tokens=1, completion_tokens=1, seconds=1, cost=1, currency="CNY")},
            "verdicts": {"numbers": {"number-unsupported": {"cut": 1}}},
            "counted": {"careloom_plugin_hook_errors_total": {canonical(dict.fromkeys(_HOOK_LABELS, "x")): 1}},
        }
        for column, tally in tallies.items():
            connection.execute(text(f"UPDATE work SET {column} = CAST(:t AS jsonb)"), {"t": json.dumps(tally)})
        connection.execute(text("INSERT INTO switches VALUES ('everything', '', 'x', 'y', now())"))
        connection.execute(text("INSERT INTO breakers (dependency) VALUES ('kafka')"))
        connection.execute(text("INSERT INTO subscriptions VALUES ('ward', 'a', 9, now(), 2, 5)"))
    fold_all(ledger_engine)
    shown = {name for name, _ in scrape(collector)}
    for metric in metrics.LEDGER.values():
        assert (f"{metric.name}_bucket" if metric.kind == "histogram" else metric.name) in shown


def test_a_ledger_that_is_down_shows_as_down_and_no_counter_at_zero() -> None:
    def read() -> Snapshot:
        raise OperationalError("SELECT", None, Exception("refused"))

    series = scrape(LedgerCollector(read, [TRIAGE]))
    assert value(series, "careloom_ledger_up") == 0
    assert not any(name.endswith("_total") for name, _ in series)


def test_scrapes_within_a_moment_share_one_snapshot(ledger_engine: Engine) -> None:
    reads = []

    def read() -> Snapshot:
        reads.append(1)
        return snapshot(ledger_engine)

    collector = LedgerCollector(read, keep=3600.0)
    scrape(collector)
    scrape(collector)
    assert len(reads) == 1


def test_a_plugins_counter_is_shown_while_it_is_enabled_and_with_the_labels_that_it_declares_now(
    ledger_engine: Engine, fill_ledger: Fill
) -> None:
    fill_ledger(2)
    name = "careloom_plugin_theirs_things_total"
    now = json.dumps({name: {canonical({"kind": "x", "scenario": "pre_visit.triage"}): 3}})
    before = json.dumps({name: {canonical({"scenario": "pre_visit.triage"}): 5}})
    with ledger_engine.begin() as connection:
        ids = list(connection.execute(text("SELECT id FROM work ORDER BY id")).scalars())
        for id_, counted in zip(ids, (now, before), strict=True):
            values = {"counted": counted, "id": id_}
            connection.execute(text("UPDATE work SET counted = CAST(:counted AS jsonb) WHERE id = :id"), values)
    fold_all(ledger_engine)
    theirs = metrics.Metric(name, "counter", "Things.", ("kind", "scenario"), "exporter")
    shown = scrape(LedgerCollector(lambda: snapshot(ledger_engine), plugin_counters=[theirs]))
    assert value(shown, name, kind="x", scenario="pre_visit.triage") == 3
    assert total(shown, name) == 3
    gone = scrape(LedgerCollector(lambda: snapshot(ledger_engine)))
    assert total(gone, name) == 0


def test_what_models_and_guards_did_is_shown_as_the_rows_say(
    ledger_engine: Engine, collector: LedgerCollector, fill_ledger: Fill
) -> None:
    fill_ledger(3)
    asked = (
        '{"m": {"requests": 2, "prompt_tokens": 10, "completion_tokens": 5, "seconds": 1.5, "cost": 0.25,'
        ' "currency": "CNY"}}'
    )
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE work SET asked = CAST(:a AS jsonb)"), {"a": asked})
        verdicts = '{"numbers": {"number-unsupported": {"cut": 2}}}'
        connection.execute(text("UPDATE work SET verdicts = CAST(:v AS jsonb)"), {"v": verdicts})
    fold_all(ledger_engine)
    shown = scrape(collector)
    triage = {"scenario": "pre_visit.triage"}
    assert value(shown, "careloom_model_requests_total", model="m", **triage) == 6
    assert value(shown, "careloom_model_tokens_total", model="m", gen_ai_token_type="output", **triage) == 15
    assert value(shown, "careloom_model_seconds_total", model="m", **triage) == 4.5
    assert value(shown, "careloom_model_cost_total", model="m", currency="CNY", **triage) == 0.75
    found = {"guard": "numbers", "code": "number-unsupported", "action": "cut"}
    assert value(shown, "careloom_guard_verdicts_total", **found, **triage) == 6


def test_an_installed_scenario_shows_its_promise_and_what_it_will_count_at_zero(
    ledger_engine: Engine, collector: LedgerCollector, fill_ledger: Fill
) -> None:
    triage = {"scenario": "pre_visit.triage", "stage": "pre_visit"}
    before = scrape(collector)
    assert value(before, "careloom_scenario_deadline_seconds", **triage) == 60
    assert value(before, "careloom_scenario_objective_ratio", **triage) == 0.95
    for outcome in metrics.DeadlineOutcome:
        assert value(before, "careloom_deadlines_total", **triage, outcome=outcome) == 0
    for model in ("m", "none"):
        assert value(before, "careloom_work_finished_total", **triage, state="written", model=model) == 0
    assert value(before, "careloom_event_to_draft_seconds_bucket", **triage, le="+Inf") == 0
    assert value(before, "careloom_event_to_draft_seconds_sum", **triage) == 0
    assert value(before, "careloom_event_to_rule_draft_seconds_count", **triage) == 0
    for hop in metrics.HOPS:
        assert value(before, "careloom_hop_duration_seconds_count", **triage, hop=hop) == 0
    fill_ledger(20)
    fold_all(ledger_engine, deadlines={"pre_visit.triage": 60.0})
    after = scrape(collector)
    assert value(after, "careloom_deadlines_total", **triage, outcome="met") == 20
    assert value(after, "careloom_deadlines_total", **triage, outcome="missed") == 0


def test_what_a_scenario_needs_is_the_model_that_it_asks_now_and_fhir_while_its_work_waits_for_it(
    ledger_engine: Engine, fill_ledger: Fill
) -> None:
    routed = Objective("pre_visit.triage", "pre_visit", "1", 60.0, models=("small", "large"))
    panel = Objective("in_visit.board", "in_visit", "1", 60.0, models=("small", "large", "third"), panel=True)
    servers = {"small": "gpu-1:8000"}
    shown = LedgerCollector(lambda: snapshot(ledger_engine), [routed, panel], servers=servers, keep=0.0)

    def needed(scenario: str) -> set[str]:
        name = "careloom_scenario_needs_info"
        found = [dict(labels) for (n, labels), _ in scrape(shown).items() if n == name]
        return {labels["needs"] for labels in found if labels["scenario"] == scenario}

    assert needed("pre_visit.triage") == {"kafka", "airflow", "model:small"}
    assert needed("in_visit.board") == {"kafka", "airflow", "model:small", "model:large", "model:third"}
    assert value(scrape(shown), "careloom_model_server_info", dependency="model:small", server="gpu-1:8000") == 1
    fill_ledger(2, state="waiting")
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE work SET source = 'ward'"))
        connection.execute(text("INSERT INTO breakers (dependency, state) VALUES ('fhir:ward', 'open')"))
        connection.execute(text("INSERT INTO switches VALUES ('model', 'small', 'Dr. Who', 'reasons', now())"))
    assert needed("pre_visit.triage") == {"kafka", "airflow", "model:large", "fhir"}
    assert needed("in_visit.board") == {"kafka", "airflow", "model:large", "model:third"}


def test_work_that_waits_for_its_own_sources_fhir_server_is_left_out_of_what_nothing_explains(
    ledger_engine: Engine, collector: LedgerCollector, fill_ledger: Fill
) -> None:
    triage = {"scenario": "pre_visit.triage", "stage": "pre_visit"}
    fill_ledger(2, state="waiting")
    fill_ledger(1, state="inferred")

    def ages() -> tuple[float, float]:
        series = scrape(collector)
        kinds = ("unfinished", "reachable")
        oldest, reachable = (value(series, f"careloom_oldest_{kind}_age_seconds", **triage) for kind in kinds)
        assert oldest is not None
        assert reachable is not None
        return oldest, reachable

    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE work SET source = 'ward'"))
    oldest, reachable = ages()
    assert oldest == pytest.approx(reachable) and oldest >= 3600
    with ledger_engine.begin() as connection:
        connection.execute(text("INSERT INTO breakers (dependency, state) VALUES ('fhir:ward', 'open')"))
    assert ages()[1] >= 3600, "drafts that are computed do not need it"
    with ledger_engine.begin() as connection:
        connection.execute(text("INSERT INTO breakers (dependency, state) VALUES ('fhir-write:ward', 'half_open')"))
    oldest, reachable = ages()
    assert reachable == 0
    assert oldest >= 3600


def test_what_a_panel_writes_and_what_is_decided_on_it_stands_at_zero_from_the_start(ledger_engine: Engine) -> None:
    """`increase()` of a series that begins at 1 misses the first."""
    case = Objective("pre_visit.triage", "pre_visit", "1", 60.0, models=("b", "a"), panel=True)
    versions = {"a": "1", "b": "2", "c": "3"}
    series = scrape(LedgerCollector(lambda: snapshot(ledger_engine), [case], models=versions, keep=0.0))
    where = {"scenario": "pre_visit.triage", "model": "b+a"}
    assert value(series, "careloom_work_finished_total", **where, stage="pre_visit", state="written") == 0
    for verdict in ("accepted", "edited", "rejected"):
        by = {**where, "model_version": "b 2; a 1", "verdict": verdict}
        assert value(series, "careloom_decisions_total", **by) == 0


def test_the_models_that_a_scenario_asks_have_answered_nothing_from_the_start(ledger_engine: Engine) -> None:
    one = Objective("pre_visit.triage", "pre_visit", "1", 60.0, models=("a",))
    series = scrape(LedgerCollector(lambda: snapshot(ledger_engine), [one], models={"a": "1", "c": "3"}, keep=0.0))
    asked = {"scenario": "pre_visit.triage", "model": "a"}
    assert value(series, "careloom_model_requests_total", **asked) == 0
    assert value(series, "careloom_model_seconds_total", **asked) == 0
    for kind in ("input", "output"):
        assert value(series, "careloom_model_tokens_total", **asked, gen_ai_token_type=kind) == 0
    for verdict in ("accepted", "edited", "rejected"):
        assert value(series, "careloom_decisions_total", **asked, model_version="1", verdict=verdict) == 0
    assert not [name for name, labels in series if name == "careloom_model_requests_total" and ("model", "c") in labels]
