"""What waits is told with the reason that holds it, made by the real verbs; finished rows tell how well it goes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from pipelines.errors import ErrorClass, PoisonReason, StepFailed
from pipelines.failures.dependencies import AIRFLOW
from pipelines.failures.policy import BREAKS_AFTER
from pipelines.ledger import Incoming, Inference, Ledger, Poison, Position, State, WorkItem
from pipelines.ledger.fold import count_overdue, fold_all
from pipelines.ledger.overview import Condition, Overview, Promise, Surroundings, Why, overview, timeliness
from pipelines.ledger.snapshot import snapshot

NOTE = "in_visit.note"
MODEL = "model:m"
PROMISE = Promise(NOTE, "in_visit", 60.0, 0.95, ("m", "n"))
HERE = Surroundings([PROMISE], {NOTE: False})
AWAY = StepFailed(ErrorClass.MODEL_UNAVAILABLE, "away")
BROKEN = StepFailed(ErrorClass.SCENARIO_ERROR, "broken")
HOPELESS = StepFailed(ErrorClass.PAYLOAD_INVALID, "it cannot be")
DRAFTS = Inference(drafts={"drafts": []}, times={})


@pytest.fixture
def ledger(ledger_engine: Engine) -> Ledger:
    """A ledger that waits for an hour after each failure."""
    return Ledger(ledger_engine, max_attempts=9, backoff=3600, backoff_cap=3600)


def claimed(ledger: Ledger, size: int = 100) -> list[WorkItem]:
    run = ledger.take_run(NOTE, size)
    return ledger.claim(run.run_id, 60) if run else []


def breaks(ledger: Ledger, dependency: str, error_class: str = "model_unavailable") -> None:
    for work in range(BREAKS_AFTER):
        ledger.not_served(dependency, error_class, work=work)


def reasons(found: Overview) -> dict[tuple[Why, str], int]:
    return {(wait.why, wait.what): wait.items for wait in found.waits}


# --- why rows wait ----------------------------------------------------------------------------------------------------


def test_each_row_waits_for_one_reason_and_the_sum_is_what_waits(ledger: Ledger, ledger_engine: Engine, make) -> None:
    # "dead" is parked, "late" failed by its own fault, "busy" is being worked on, "free" may go
    ledger.record([make(o, patient=p) for o, p in enumerate(("dead", "late", "busy"))])
    dead, late, _ = claimed(ledger)
    ledger.failed(dead, HOPELESS)
    ledger.failed(late, BROKEN)
    ledger.record([make(10 + o, patient=p) for o, p in enumerate(("dead", "dead", "late", "busy", "free"))])
    found = overview(ledger_engine, HERE)
    assert reasons(found) == {
        (Why.BEHIND_PARKED, ""): 2,
        (Why.BACKOFF, "scenario_error"): 1,
        (Why.BEHIND_WAITING, ""): 1,
        (Why.BEHIND_RUNNING, ""): 1,
        (Why.READY, ""): 1,
    }
    [standing] = found.scenarios
    assert (standing.condition, standing.waiting, standing.running, standing.parked) == (Condition.RUNNING, 6, 1, 1)
    [parked] = found.parked
    assert (parked.scenario, parked.error_class, parked.items) == (NOTE, "payload_invalid", 1)
    [backoff] = [wait for wait in found.waits if wait.why is Why.BACKOFF]
    assert backoff.until is not None and backoff.until > found.at


def test_rows_of_one_patient_are_ready_together_and_the_sum_is_the_dispatchers(
    ledger: Ledger, ledger_engine: Engine, make
) -> None:
    ledger.record([make(o, patient=str(o % 3)) for o in range(9)])
    for item in claimed(ledger, 2):
        ledger.failed(item, BROKEN)
    found = reasons(overview(ledger_engine, HERE))
    assert found == {(Why.BACKOFF, "scenario_error"): 2, (Why.BEHIND_WAITING, ""): 4, (Why.READY, ""): 3}
    [backlog] = ledger.backlog()
    assert backlog.waiting == sum(found.values())


@pytest.mark.parametrize("dependency", ["fhir:hospital", "kafka", MODEL])
def test_a_dependency_that_is_down_is_named_with_its_breaker(
    ledger: Ledger, ledger_engine: Engine, make, dependency: str
) -> None:
    ledger.record([make(0)])
    if dependency == MODEL:
        [item] = claimed(ledger)
        ledger.failed(item, AWAY, dependency=MODEL)
    breaks(ledger, dependency)
    found = overview(ledger_engine, HERE)
    assert reasons(found) == {(Why.DEPENDENCY_DOWN, dependency): 1}
    [breaker] = found.down
    assert (breaker.dependency, breaker.error_class) == (dependency, "model_unavailable")


def test_drafts_wait_for_writing_alone(ledger: Ledger, ledger_engine: Engine, make) -> None:
    ledger.record([make(0)])
    [item] = claimed(ledger)
    item = ledger.inferred(item, DRAFTS)
    ledger.give_back(item)
    breaks(ledger, "fhir:hospital")
    assert reasons(overview(ledger_engine, HERE)) == {(Why.READY, ""): 1}
    breaks(ledger, "fhir-write:hospital")
    assert reasons(overview(ledger_engine, HERE)) == {(Why.DEPENDENCY_DOWN, "fhir-write:hospital"): 1}


def test_a_model_that_is_switched_off_is_no_model_that_is_down(ledger: Ledger, ledger_engine: Engine, make) -> None:
    ledger.record([make(0)])
    ledger.switch_off("model", "n", by="zhang", why="new weights")
    [item] = claimed(ledger)
    ledger.failed(item, AWAY)  # as `asking` says it: it names no dependency
    found = overview(ledger_engine, HERE)
    assert reasons(found) == {(Why.MODEL_OFF, "n"): 1}
    assert not found.down
    [switch] = found.switches
    assert (switch.kind, switch.name, switch.by, switch.why) == ("model", "n", "zhang", "new weights")


@pytest.mark.parametrize(
    ("around", "why", "condition"),
    [
        (Surroundings([], {NOTE: False}), Why.NOT_INSTALLED, Condition.NOT_INSTALLED),
        (Surroundings([PROMISE], {}), Why.NO_DAG, Condition.NO_DAG),
        (Surroundings([PROMISE], {NOTE: True}), Why.PAUSED, Condition.PAUSED),
        (Surroundings([PROMISE], {NOTE: False}, lacks=lambda s, o: "9 wait at model m"), Why.MODEL_FULL, "running"),
        (Surroundings([PROMISE], None), Why.READY, Condition.RUNNING),
    ],
)
def test_what_holds_a_whole_scenario_is_brought_by_who_asks(
    ledger: Ledger, ledger_engine: Engine, make, around: Surroundings, why: Why, condition: str
) -> None:
    ledger.record([make(0)])
    found = overview(ledger_engine, around)
    assert [wait.why for wait in found.waits] == [why]
    assert [standing.condition for standing in found.scenarios] == [condition]


def test_switches_stand_before_all_else(ledger: Ledger, ledger_engine: Engine, make) -> None:
    ledger.record([make(0)])
    ledger.switch_off("scenario", NOTE, by="li", why="audit")
    around = Surroundings([PROMISE], {NOTE: True})
    found = overview(ledger_engine, around)
    assert [wait.why for wait in found.waits] == [Why.SCENARIO_OFF]
    ledger.switch_off("everything", "", by="li", why="night")
    found = overview(ledger_engine, around)
    assert [wait.why for wait in found.waits] == [Why.EVERYTHING_OFF]
    assert found.scenarios[0].condition is Condition.OFF


def test_rows_wait_while_airflow_is_down_or_all_its_runs_are_open(ledger: Ledger, ledger_engine: Engine, make) -> None:
    ledger.record([make(o, patient=str(o)) for o in range(3)])
    assert ledger.take_run(NOTE, 1) and ledger.take_run(NOTE, 1)
    assert reasons(overview(ledger_engine, HERE)) == {(Why.RUNS_FULL, ""): 1}
    breaks(ledger, AIRFLOW, "airflow_unavailable")
    assert reasons(overview(ledger_engine, HERE)) == {(Why.AIRFLOW_DOWN, "airflow_unavailable"): 1}


def test_a_scenario_that_only_the_ledger_knows_is_shown_after_the_installed_ones(
    ledger: Ledger, ledger_engine: Engine, make
) -> None:
    ledger.record([make(0, scenarios=("a.gone",))])
    found = overview(ledger_engine, HERE)
    assert [(s.scenario, s.condition, s.waiting) for s in found.scenarios] == [
        (NOTE, Condition.RUNNING, 0),
        ("a.gone", Condition.NOT_INSTALLED, 1),
    ]
    assert [s.oldest is None for s in found.scenarios] == [True, False]


def test_poison_that_nobody_has_decided_on_is_counted_by_reason(ledger: Ledger, ledger_engine: Engine) -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    ledger.record(
        [Incoming(Position("events", 0, o), None, poison=Poison(PoisonReason.NOT_JSON, when)) for o in (1, 2)]
    )
    ledger.discard_poison(next(iter(ledger.poison())).id, by="li", why="a test")
    assert overview(ledger_engine, HERE).poison == {"not_json": 1}


# --- objectives -------------------------------------------------------------------------------------------------------


def test_the_share_in_time_is_what_the_counters_say(ledger_engine: Engine, fill_ledger: Callable[..., None]) -> None:
    """`fill_ledger` lets each row take 6.6 to 6.8 s; a third is made late, others given up, stale, open, replayed."""
    promise = Promise("pre_visit.triage", "pre_visit", 60.0, 0.95)
    fill_ledger(30)
    fill_ledger(4, state="discarded")
    fill_ledger(3, state="stale")
    fill_ledger(5, state="waiting")
    fill_ledger(7, state="written")
    changes = (
        "UPDATE work SET received_at = now() - interval '30 s', written_at = NULL, finished_at = NULL"
        " WHERE state = 'waiting'",
        "UPDATE work SET received_at = now() - interval '90 s' WHERE id IN"
        " (SELECT id FROM work WHERE state = 'waiting' ORDER BY id LIMIT 2)",
        "UPDATE work SET received_at = received_at - interval '1 hour' WHERE state = 'written' AND id % 3 = 0",
        "UPDATE work SET replay = 1 WHERE id > (SELECT max(id) - 7 FROM work)",
        "UPDATE work SET written_at = NULL WHERE state <> 'written'",
    )
    with ledger_engine.begin() as connection:
        for change in changes:
            connection.execute(text(change))
    found = timeliness(ledger_engine, [promise], 3600)[promise.scenario]
    deadlines = {promise.scenario: promise.deadline}
    count_overdue(ledger_engine, deadlines)
    fold_all(ledger_engine, deadlines=deadlines)
    counted = {
        sample.labels["outcome"]: sample.value
        for sample in snapshot(ledger_engine).samples
        if sample.name == "careloom_deadlines_total"
    }
    assert {"met": found.met, "missed": found.missed} == counted
    assert (found.missed, found.discarded) == (10 + 4 + 2, 4)
    assert found.share == pytest.approx(20 / 36)


def test_what_came_before_the_window_says_nothing(ledger_engine: Engine, fill_ledger: Callable[..., None]) -> None:
    promise = Promise("pre_visit.triage", "pre_visit", 60.0, 0.95)
    fill_ledger(5)
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE events SET durable_at = now() - interval '2 hours'"))
    assert timeliness(ledger_engine, [promise], 3600) == {}
    assert timeliness(ledger_engine, [promise], 86_400)[promise.scenario].met == 5


def test_a_discarded_row_is_finished_and_waits_for_nobody(ledger: Ledger, ledger_engine: Engine, make) -> None:
    ledger.record([make(0)])
    [item] = claimed(ledger)
    ledger.failed(item, HOPELESS)
    ledger.decide_dead_letter(item.id, State.DISCARDED, by="li", why="entered in error")
    found = overview(ledger_engine, HERE)
    assert (found.waits, found.parked) == ([], [])
    assert (found.scenarios[0].waiting, found.scenarios[0].parked) == (0, 0)
