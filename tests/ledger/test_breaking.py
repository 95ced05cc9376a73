"""Breakers in the ledger: what opens and closes one, who may try, what waits meanwhile, and whose failure it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text

from pipelines.errors import ErrorClass, StepFailed, Waits
from pipelines.failures.policy import BREAKS_AFTER
from pipelines.ledger import Inference, Ledger, State, WorkItem
from pipelines.ledger.breaking import Breaker, BreakerState

NOTE = "in_visit.note"
MODEL = "model:m"
READING = "fhir:hospital"
WRITING = "fhir-write:hospital"
AWAY = StepFailed(ErrorClass.MODEL_UNAVAILABLE, "away")
SLOW = StepFailed(ErrorClass.MODEL_TIMEOUT, "slow")
DRAFTS = Inference(drafts={"drafts": []}, times={})


def known(ledger: Ledger, dependency: str) -> Breaker:
    return {breaker.dependency: breaker for breaker in ledger.breakers()}[dependency]


def breaks(ledger: Ledger, dependency: str) -> None:
    for work in range(BREAKS_AFTER):
        ledger.not_served(dependency, "model_unavailable", work=work)


@pytest.fixture
def its_time_comes(ledger_engine: Engine) -> Callable[[], None]:
    """Lets every open breaker be tried."""

    def come() -> None:
        with ledger_engine.begin() as connection:
            connection.execute(text("UPDATE breakers SET retry_at = now()"))

    return come


@pytest.fixture
def patient_ledger(ledger_engine: Engine) -> Ledger:
    """A ledger that waits for an hour after each failure."""
    return Ledger(ledger_engine, max_attempts=3, backoff=3600, backoff_cap=3600)


def claimed(ledger: Ledger, size: int = 100) -> list[WorkItem]:
    run = ledger.take_run(NOTE, size)
    return ledger.claim(run.run_id, 60) if run else []


# --- opening and closing ----------------------------------------------------------------------------------------------


def test_failures_of_several_in_a_row_open_it_and_a_success_closes_it(ledger: Ledger):
    breaks(ledger, MODEL)
    breaker = known(ledger, MODEL)
    assert (breaker.state, breaker.error_class) == (BreakerState.OPEN, "model_unavailable")
    assert breaker.opened_at and breaker.retry_at and breaker.retry_at >= breaker.opened_at
    ledger.served([MODEL])
    assert known(ledger, MODEL).clean
    assert known(ledger, MODEL).opened_at is None


def test_a_success_between_them_begins_the_count_anew(ledger: Ledger):
    for work in range(4 * BREAKS_AFTER):
        if work % BREAKS_AFTER == BREAKS_AFTER - 1:
            ledger.served([MODEL])
        else:
            ledger.not_served(MODEL, "model_unavailable", work=work)
    assert known(ledger, MODEL).state is BreakerState.CLOSED


def test_one_event_alone_never_opens_it_however_often_it_fails(ledger: Ledger):
    for _ in range(5 * BREAKS_AFTER):
        ledger.not_served(MODEL, "model_timeout", work=7)
    assert known(ledger, MODEL).state is BreakerState.CLOSED
    ledger.not_served(MODEL, "model_timeout", work=8)
    assert known(ledger, MODEL).state is BreakerState.OPEN


def test_a_retry_after_is_waited_for_and_tries_come_ever_later(patient_ledger: Ledger, ledger: Ledger, its_time_comes):
    for work in range(BREAKS_AFTER):
        ledger.not_served(MODEL, "model_unavailable", work=work, retry_after=500)
    opened = known(ledger, MODEL)
    assert opened.retry_at and opened.opened_at
    assert (opened.retry_at - opened.opened_at).total_seconds() >= 500
    breaks(patient_ledger, READING)
    opened = known(patient_ledger, READING)
    assert opened.retry_at and opened.opened_at
    assert (opened.retry_at - opened.opened_at).total_seconds() >= 1800  # at least half of the wait, never none


# --- trying -----------------------------------------------------------------------------------------------------------


def test_one_run_tries_and_its_failure_opens_it_again(ledger: Ledger, make, its_time_comes):
    ledger.record([make(o, patient=str(o)) for o in range(2)])
    one, other = claimed(ledger, 1)[0], claimed(ledger, 1)[0]
    breaks(ledger, MODEL)
    its_time_comes()
    assert ledger.take_probe(MODEL, one.run_id)
    assert not ledger.take_probe(MODEL, other.run_id)
    ledger.failed(other, AWAY, dependency=MODEL)  # asked before it opened, and late
    assert known(ledger, MODEL).probe == one.run_id
    ledger.failed(one, AWAY, dependency=MODEL)
    assert known(ledger, MODEL).state is BreakerState.OPEN


def test_nobody_tries_before_its_time_and_nobody_needs_to_try_what_is_closed(ledger: Ledger, ledger_engine: Engine):
    breaks(ledger, MODEL)
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE breakers SET retry_at = now() + interval '1 hour'"))
    assert not ledger.take_probe(MODEL, "run")
    ledger.served([MODEL])
    assert not ledger.take_probe(MODEL, "run")


def test_when_the_run_that_tried_is_gone_another_may(ledger: Ledger, make, its_time_comes):
    ledger.record([make(o, patient=str(o)) for o in range(2)])
    dead, living = claimed(ledger, 1)[0], claimed(ledger, 1)[0]
    breaks(ledger, MODEL)
    its_time_comes()
    assert ledger.take_probe(MODEL, dead.run_id)
    ledger.release_run(dead.run_id, "failed")
    assert ledger.take_probe(MODEL, living.run_id)


def test_of_many_that_want_to_try_at_once_one_does(ledger: Ledger, its_time_comes, ledger_engine: Engine):
    breaks(ledger, MODEL)
    its_time_comes()
    with ledger_engine.begin() as connection:
        insert = text("INSERT INTO runs (run_id, scenario, size, decided_at) VALUES (:run, 's', 1, now())")
        connection.execute(insert, [{"run": str(run)} for run in range(8)])
    barrier = threading.Barrier(8)
    won: list[int] = []

    def want(run: int) -> None:
        barrier.wait()
        if ledger.take_probe(MODEL, str(run)):
            won.append(run)

    threads = [threading.Thread(target=want, args=(run,)) for run in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1


# --- what waits -------------------------------------------------------------------------------------------------------


def test_rows_that_wait_for_a_model_wait_while_it_is_down_and_new_ones_get_their_rules_run(
    patient_ledger: Ledger, make, its_time_comes
):
    ledger = patient_ledger
    ledger.record([make(0, patient="a")])
    (item,) = claimed(ledger)
    breaks(ledger, MODEL)
    ledger.wait(item, Waits("down", dependency=MODEL, rules_ran=True))
    ledger.record([make(1, patient="a"), make(2, patient="b")])
    behind, new = claimed(ledger)
    assert [(i.event.position.offset, i.rules_only) for i in (behind, new)] == [(1, True), (2, False)]
    ledger.wait(behind, Waits("its rules have run", rules_ran=True))
    ledger.wait(new, Waits("down", dependency=MODEL, rules_ran=True))
    assert claimed(ledger) == []
    assert [(b.ready, b.waiting) for b in ledger.backlog()] == [(0, 3)] or ledger.close_finished_runs()
    its_time_comes()
    assert [i.event.position.offset for i in claimed(ledger)] == [0, 1, 2]


@pytest.mark.parametrize("down", [READING, "kafka"])
def test_without_the_record_or_the_bytes_nothing_is_begun(patient_ledger: Ledger, make, down: str):
    patient_ledger.record([make(0)])
    breaks(patient_ledger, down)
    assert claimed(patient_ledger) == []
    patient_ledger.served([down])
    assert len(claimed(patient_ledger)) == 1


def test_drafts_wait_for_writing_alone_and_new_rows_do_not(patient_ledger: Ledger, make):
    ledger = patient_ledger
    ledger.record([make(0, patient="a")])
    (item,) = claimed(ledger)
    ledger.give_back(ledger.inferred(item, DRAFTS))
    ledger.record([make(1, patient="b")])
    breaks(ledger, WRITING)
    assert [i.event.position.offset for i in claimed(ledger)] == [1]
    breaks(ledger, READING)
    ledger.served([WRITING])
    run = ledger.take_run(NOTE, 10)
    assert run and len(ledger.claim(run.run_id, 60)) == 1


def test_another_source_s_rows_go_on(patient_ledger: Ledger, make):
    breaks(patient_ledger, "fhir:elsewhere")
    patient_ledger.record([make(0)])
    assert len(claimed(patient_ledger)) == 1


# --- whose failure it was ---------------------------------------------------------------------------------------------


def fails(ledger: Ledger, failure: StepFailed, *, offset: int = 0, others: Callable[[], Any] = lambda: None) -> State:
    """The row at that offset fails once more; whatever else the run gave out is given back."""
    state = State.WAITING
    for item in claimed(ledger):
        if item.event.position.offset == offset:
            others()
            state = ledger.failed(item, failure, dependency=MODEL)
        else:
            ledger.give_back(item)
    return state


@pytest.mark.parametrize("failure", [AWAY, SLOW], ids=lambda f: f.error_class.value)
def test_an_event_that_fails_while_others_are_served_is_parked_in_the_end(
    ledger: Ledger, make, failure: StepFailed, rows
):
    ledger.record([make(0)])
    states = [fails(ledger, failure, others=lambda: ledger.served([MODEL])) for _ in range(6)]
    assert State.PARKED in states
    assert rows()[0][0] == "parked"


def test_a_timeout_counts_although_nobody_else_is_there(ledger: Ledger, make):
    ledger.record([make(0)])
    assert [fails(ledger, SLOW) for _ in range(3)] == [State.WAITING, State.WAITING, State.PARKED]


def test_while_everything_fails_no_attempts_are_used_up(ledger: Ledger, make, ledger_engine: Engine, its_time_comes):
    ledger.record([make(o, patient=str(o)) for o in range(20)])
    for _ in range(12):
        for item in claimed(ledger):
            ledger.failed(item, SLOW, dependency=MODEL)
        ledger.close_finished_runs()
        its_time_comes()
    with ledger_engine.begin() as connection:
        attempts = connection.execute(text("SELECT attempts, tries FROM work ORDER BY id")).all()
    # those before the breaker opened count once: nobody could know
    assert [a for a, _ in attempts] == [1] * (BREAKS_AFTER - 1) + [0] * (20 - BREAKS_AFTER + 1)
    assert min(tries for _, tries in attempts) > 5
    assert ledger.account().work == {State.WAITING: 20}


def test_a_wait_that_has_a_time_limit_ends_with_it(ledger: Ledger, make, ledger_engine: Engine):
    missing = StepFailed(ErrorClass.SCENARIO_MISSING, "not installed")
    ledger.record([make(0)])
    for _ in range(5):
        assert ledger.failed(claimed(ledger)[0], missing) is State.WAITING
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE work SET failing_since = now() - interval '25 hours'"))
    assert ledger.failed(claimed(ledger)[0], missing) is State.PARKED


def test_what_will_never_be_otherwise_is_parked_at_once(ledger: Ledger, make):
    ledger.record([make(0)])
    assert ledger.failed(claimed(ledger)[0], StepFailed(ErrorClass.PAYLOAD_INVALID, "no resource")) is State.PARKED


def test_what_failed_over_a_dependency_that_is_down_is_not_the_one_that_tries_it(
    ledger: Ledger, ledger_engine: Engine, make, its_time_comes
):
    ledger.record([make(0, patient="a"), make(1, patient="b")])
    culprit, other = claimed(ledger)
    for work in range(1000, 1000 + BREAKS_AFTER):
        ledger.not_served(MODEL, "model_timeout", work=work)
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE breakers SET retry_at = now() + interval '1 hour'"))
    ledger.failed(culprit, SLOW, dependency=MODEL)
    ledger.wait(other, Waits("down", dependency=MODEL, rules_ran=True))
    its_time_comes()
    assert [item.id for item in claimed(ledger)] == [other.id]


def test_an_operator_is_told_since_when_and_over_what_it_is_down(ledger: Ledger):
    breaks(ledger, MODEL)
    assert "(model_unavailable, 5 failures in a row; tried again at " in known(ledger, MODEL).line


def test_a_transaction_whose_process_does_not_move_is_ended(ledger_engine: Engine):
    """Or a paused dispatcher would keep its locks, and the others from their work."""
    with ledger_engine.begin() as connection:
        assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar() == "15s"
