"""Rows into runs: order per patient, no run twice, nobody held back by another's trouble."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from pipelines.errors import ErrorClass, IllegalMove, LeaseLost, StepFailed, Waits
from pipelines.ledger import Inference, Ledger, State, Written

NOTE = "in_visit.note"
DRAFTS = Inference(drafts={"drafts": []}, times={})
NOTHING_NEW = Written(references=(), created=0, recognised=1)
OWN_FAULT = StepFailed(ErrorClass.SCENARIO_ERROR, "broken")
OUTAGE = StepFailed(ErrorClass.MODEL_UNAVAILABLE, "away")


def finish(ledger: Ledger, run_id: str) -> None:
    for item in ledger.claim(run_id, 60):
        ledger.written(ledger.inferred(item, DRAFTS), NOTHING_NEW)


def test_a_run_takes_the_oldest_rows_and_all_of_a_patient_in_order(ledger: Ledger, make, rows):
    ledger.record([make(o, patient="ab"[o % 2]) for o in range(6)])
    run = ledger.take_run(NOTE, 4)
    assert run is not None and run.size == 4
    assert [item.event.position.offset for item in ledger.claim(run.run_id, 60)] == [0, 1, 2, 3]


def test_while_a_patient_is_in_a_run_no_other_run_of_the_scenario_takes_it(ledger: Ledger, make):
    ledger.record(
        [make(0, patient="a"), make(1, patient="a", scenarios=(NOTE, "in_visit.watch")), make(2, patient="b")]
    )
    first = ledger.take_run(NOTE, 1)
    second = ledger.take_run(NOTE, 10)
    assert first and second
    assert [item.event.patient_key for item in ledger.claim(second.run_id, 60)] == ["b"]
    assert ledger.take_run(NOTE, 10) is None
    assert ledger.take_run("in_visit.watch", 10) is not None
    finish(ledger, first.run_id)
    assert ledger.take_run(NOTE, 10) is not None


def test_a_parked_row_holds_back_its_patient_in_its_scenario_only(ledger: Ledger, make, rows):
    ledger.record(
        [make(0, patient="a"), make(1, patient="a", scenarios=(NOTE, "in_visit.watch")), make(2, patient="b")]
    )
    for _ in range(3):
        run = ledger.take_run(NOTE, 1)
        assert run
        (item,) = ledger.claim(run.run_id, 60)
        assert item.event.position.offset == 0
        state = ledger.failed(item, OWN_FAULT)
    assert state is State.PARKED
    run = ledger.take_run(NOTE, 10)
    assert run and [(i.event.position.offset, i.rules_only) for i in ledger.claim(run.run_id, 60)] == [
        (1, True), (2, False),
    ]  # fmt: skip
    assert ledger.take_run("in_visit.watch", 10) is not None
    assert [(letter.scenario, letter.error_class) for letter in ledger.dead_letters()] == [(NOTE, "scenario_error")]


@pytest.mark.parametrize("decision", [State.WAITING, State.DISCARDED])
def test_a_decision_on_a_dead_letter_frees_the_patient(ledger: Ledger, make, decision: State):
    ledger.record([make(0), make(1)])
    for _ in range(3):
        run = ledger.take_run(NOTE, 1)
        assert run
        ledger.failed(ledger.claim(run.run_id, 60)[0], OWN_FAULT)
    (letter,) = ledger.dead_letters()
    ledger.decide_dead_letter(letter.id, decision, by="me", why="so")
    run = ledger.take_run(NOTE, 10)
    assert run and run.size == (2 if decision is State.WAITING else 1)
    assert ledger.account().unaccounted == 0


def test_an_outage_costs_an_event_no_attempt(ledger: Ledger, make):
    ledger.record([make(0)])
    for _ in range(10):
        run = ledger.take_run(NOTE, 1)
        assert run
        (item,) = ledger.claim(run.run_id, 60)
        assert ledger.failed(item, OUTAGE) is State.WAITING
    assert item.attempts == 0


def test_a_backoff_holds_back_later_rows_of_the_patient(ledger_engine: Engine, make):
    ledger = Ledger(ledger_engine, backoff=3600, backoff_cap=3600)
    ledger.record([make(0, patient="a"), make(1, patient="a"), make(2, patient="b")])
    run = ledger.take_run(NOTE, 1)
    assert run
    ledger.failed(ledger.claim(run.run_id, 60)[0], StepFailed(ErrorClass.MODEL_UNAVAILABLE, "away", retry_after=3600))
    after = ledger.take_run(NOTE, 10)
    assert after
    behind, other = ledger.claim(after.run_id, 60)
    assert [(i.event.patient_key, i.rules_only) for i in (behind, other)] == [("a", True), ("b", False)]
    ledger.wait(behind, Waits("its rules have run", rules_ran=True))
    (backlog,) = ledger.backlog()
    assert (backlog.ready, backlog.waiting) == (0, 2)
    assert ledger.take_run(NOTE, 10) is None


def test_a_row_behind_another_is_given_out_for_its_rules_once_and_no_model_may_be_asked_for_it(ledger: Ledger, make):
    ledger.record([make(0), make(1), make(2)])
    for _ in range(3):
        run = ledger.take_run(NOTE, 1)
        assert run
        ledger.failed(ledger.claim(run.run_id, 60)[0], OWN_FAULT)
    run = ledger.take_run(NOTE, 10)
    assert run
    first, second = ledger.claim(run.run_id, 60)
    with pytest.raises(IllegalMove):
        ledger.inferred(first, DRAFTS)
    ledger.wait(first, Waits("its rules have run", rules_ran=True))
    ledger.give_back(second)
    again = ledger.take_run(NOTE, 10)
    assert again and [item.id for item in ledger.claim(again.run_id, 60)] == [second.id]


def test_drafts_that_failed_to_be_written_wait_to_be_written_only(ledger: Ledger, make):
    ledger.record([make(0)])
    run = ledger.take_run(NOTE, 1)
    assert run
    item = ledger.inferred(ledger.claim(run.run_id, 60)[0], DRAFTS)
    assert ledger.failed(item, OUTAGE) is State.INFERRED
    again = ledger.take_run(NOTE, 1)
    assert again and again.run_id != run.run_id
    (item,) = ledger.claim(again.run_id, 60)
    assert (item.state, item.drafts) == (State.INFERRED, DRAFTS.drafts)


def test_a_worker_that_lost_its_lease_changes_nothing(ledger: Ledger, make, rows):
    ledger.record([make(0)])
    run = ledger.take_run(NOTE, 1)
    assert run
    (dead,) = ledger.claim(run.run_id, 60)
    (living,) = ledger.claim(run.run_id, 60)
    for write in (
        lambda: ledger.inferred(dead, DRAFTS),
        lambda: ledger.rules_written(dead, NOTHING_NEW),
        lambda: ledger.failed(dead, OWN_FAULT),
        lambda: ledger.give_back(dead),
        lambda: ledger.stale(dead),
        lambda: ledger.written(dead, NOTHING_NEW),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert rows() == {0: ("running", run.run_id)}
    assert ledger.renew([dead], 60) == set()
    assert ledger.renew([living], 60) == {living.id}
    ledger.inferred(living, DRAFTS)
    ledger.release_run(run.run_id, "failed")
    with pytest.raises(LeaseLost):
        ledger.written(living, NOTHING_NEW)


def test_a_row_that_was_not_inferred_cannot_be_written(ledger: Ledger, make):
    ledger.record([make(0)])
    run = ledger.take_run(NOTE, 1)
    assert run
    (item,) = ledger.claim(run.run_id, 60)
    with pytest.raises(LeaseLost):
        ledger.written(item, NOTHING_NEW)


def test_a_released_run_blames_only_rows_that_were_begun(ledger: Ledger, make, ledger_engine: Engine):
    ledger.record([make(o, patient=str(o)) for o in range(3)])
    unclaimed, run = ledger.take_run(NOTE, 1), ledger.take_run(NOTE, 2)
    assert unclaimed and run
    ledger.inferred(ledger.claim(run.run_id, 60)[0], DRAFTS)
    assert ledger.release_run(unclaimed.run_id, "failed") == 1
    assert ledger.release_run(run.run_id, "failed") == 2
    with ledger_engine.begin() as connection:
        attempts = connection.execute(text("SELECT state, attempts FROM work ORDER BY id")).all()
        failures = connection.execute(text("SELECT error_class, hop, count FROM failures ORDER BY hop")).all()
    assert [tuple(row) for row in attempts] == [("waiting", 0), ("inferred", 1), ("waiting", 1)]
    assert [tuple(row) for row in failures] == [("worker_lost", "started", 1), ("worker_lost", "written", 1)]
    assert ledger.release_run(run.run_id, "failed") == 0
    assert ledger.open_runs() == []


def test_an_event_that_kills_its_worker_is_parked_in_the_end_and_nobody_with_it(ledger: Ledger, make, rows):
    ledger.record([make(o, patient=str(o)) for o in range(40)])
    killer, done, losses = 17, 0, 0
    while run := ledger.take_run(NOTE, 16):
        items = ledger.claim(run.run_id, 60)
        if killer in (item.event.position.offset for item in items):
            losses += 1
            ledger.release_run(run.run_id, "failed")
            continue
        for item in items:
            ledger.written(ledger.inferred(item, DRAFTS), NOTHING_NEW)
            done += 1
    assert (done, losses) == (39, 3)
    assert {offset for offset, (state, _) in rows().items() if state == "parked"} == {killer}
    assert ledger.account().unaccounted == 0


def test_a_run_is_closed_when_its_last_row_is_finished(ledger: Ledger, make):
    ledger.record([make(0), make(1, patient="b")])
    run = ledger.take_run(NOTE, 2)
    assert run and not run.posted
    ledger.run_posted(run.run_id)
    assert [(r.run_id, r.posted) for r in ledger.open_runs()] == [(run.run_id, True)]
    assert ledger.close_finished_runs() == []
    finish(ledger, run.run_id)
    assert [r.scenario for r in ledger.close_finished_runs()] == [NOTE]
    assert ledger.open_runs() == []
    assert ledger.backlog() == []


@pytest.mark.parametrize(("kind", "name"), [("everything", ""), ("scenario", NOTE)])
def test_what_is_switched_off_gets_no_run_and_loses_nothing(ledger: Ledger, make, kind: str, name: str):
    ledger.record([make(0, scenarios=(NOTE, "in_visit.watch"))])
    ledger.switch_off(kind, name, by="me", why="a test")
    assert ledger.take_run(NOTE, 10) is None
    assert (ledger.take_run("in_visit.watch", 10) is None) == (kind == "everything")
    assert ledger.is_off("scenario", NOTE)
    assert ledger.switch_on(kind, name, by="li")
    assert not ledger.switch_on(kind, name, by="li")
    assert ledger.take_run(NOTE, 10) is not None


def test_dispatchers_that_take_runs_at_once_never_share_a_row_or_a_patient(ledger: Ledger, make, ledger_engine: Engine):
    ledger.record([make(o, patient=f"p{o % 30}") for o in range(240)])
    barrier = threading.Barrier(4)
    taken: list[str] = []

    def dispatcher() -> None:
        barrier.wait()
        while run := ledger.take_run(NOTE, 7):
            taken.append(run.run_id)

    threads = [threading.Thread(target=dispatcher) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ledger_engine.begin() as connection:
        bound = connection.execute(text("SELECT run_id, patient_key FROM work WHERE run_id IS NOT NULL")).all()
        sizes = {run_id: size for run_id, size in connection.execute(text("SELECT run_id, size FROM runs"))}
    runs_of_patient: dict[str, set[str]] = {}
    for run_id, patient in bound:
        runs_of_patient.setdefault(patient, set()).add(run_id)
    assert all(len(runs) == 1 for runs in runs_of_patient.values())
    assert Counter(run_id for run_id, _ in bound) == sizes
    assert sorted(taken) == sorted(sizes)


# --- which version counts ---------------------------------------------------------------------------------------------


def test_a_superseded_version_becomes_stale_however_the_versions_came(ledger: Ledger, make, rows):
    order = (1, 3, 4, 6, 7, 8, 9, 10, 2, 5)  # as HAPI FHIR delivered a create and nine updates
    ledger.record([make(o, resource="enc", version=str(v), updated=v) for o, v in enumerate(order)])
    run = ledger.take_run(NOTE, 100)
    assert run and run.size == 1
    assert {o: state for o, (state, _) in rows().items() if state != "stale"} == {order.index(10): "dispatched"}


def test_a_newer_version_that_starts_nothing_makes_the_older_stale(ledger: Ledger, make, rows):
    ledger.record(
        [make(0, resource="enc", updated=1), make(1, resource="enc", updated=2, scenarios=(), change="deleted")]
    )
    assert ledger.take_run(NOTE, 10) is None
    assert rows()[0][0] == "stale"
    assert ledger.account().unaccounted == 0


def test_behind_superseded_rows_the_ready_ones_are_found_at_once(ledger: Ledger, make):
    ledger.record([make(o, resource="enc", updated=o, version=str(o)) for o in range(20)])
    ledger.record([make(20, patient="b")])
    run = ledger.take_run(NOTE, 5)
    assert run is not None
    assert {item.event.position.offset for item in ledger.claim(run.run_id, 60)} <= {19, 20}


def test_rows_on_the_way_are_told_when_a_newer_version_came(ledger: Ledger, make):
    ledger.record([make(0, resource="enc", updated=1), make(1, resource="other", patient="b")])
    run = ledger.take_run(NOTE, 10)
    assert run
    items = ledger.claim(run.run_id, 60)
    assert ledger.superseded(items) == set()
    ledger.record([make(2, resource="enc", updated=2, scenarios=())])
    assert ledger.superseded(items) == {items[0].id}
    ledger.stale(items[0])


_version = st.tuples(st.none() | st.integers(0, 3), st.none() | st.integers(0, 3).map(str) | st.just("opaque"))


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=st.lists(_version, min_size=1, max_size=6))
def test_of_whatever_versions_exactly_one_is_not_superseded(ledger: Ledger, make, ledger_engine, versions):
    """Told pair by pair with different yardsticks, three versions could supersede each other in a circle."""
    _empty(ledger_engine)
    ledger.record([make(o, resource="enc", version=v, updated=u, patient=str(o)) for o, (u, v) in enumerate(versions)])
    run = ledger.take_run(NOTE, 100)
    assert run is not None and run.size == 1


def _empty(ledger_engine: Engine) -> None:
    with ledger_engine.begin() as connection:
        connection.execute(
            text("TRUNCATE decisions, work, events, runs, progress, failures, switches, subscriptions, samples")
        )
