"""Dead letters of both kinds in the ledger: counted exactly, decided on once, and never with the account in doubt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text

from pipelines.errors import ErrorClass, LedgerError, PoisonReason, StepFailed
from pipelines.ledger import Incoming, Inference, Ledger, Match, Poison, Position, Recorded, State
from pipelines.ledger.dead_letters import Chosen
from pipelines.ledger.snapshot import snapshot

NOTE = "in_visit.note"
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def ledger(ledger_engine: Engine) -> Ledger:
    """A ledger that parks at the first failure."""
    return Ledger(ledger_engine, max_attempts=1)


def poison(offset: int, reason: PoisonReason = PoisonReason.NOT_JSON, *, at: datetime = WHEN) -> Incoming:
    copy = Position("events.dead-letters", 0, 100 + offset)
    return Incoming(Position("events", 0, offset), None, poison=Poison(reason, at, copy))


def park(ledger: Ledger, incoming: Incoming, error_class: ErrorClass = ErrorClass.PAYLOAD_INVALID) -> int:
    ledger.record([incoming])
    run = ledger.take_run(incoming.matches[0].scenario, 10)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    ledger.failed(item, StepFailed(error_class, "it cannot be"))
    return item.id


# --- work -------------------------------------------------------------------------------------------------------------


def test_a_dead_letter_tells_its_step_its_runs_and_what_waits_behind_it(ledger: Ledger, make) -> None:
    ledger.record([make(0), make(1), make(2), make(3, patient="another")])
    run = ledger.take_run(NOTE, 1)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    ledger.failed(
        ledger.inferred(item, Inference({"drafts": []}, {"context_at": WHEN})),
        StepFailed(ErrorClass.FHIR_REJECTED, "it never takes this"),
    )
    [letter] = ledger.dead_letters()
    assert (letter.step, letter.held_back, letter.tried_in, letter.context_at) == ("write_back", 2, [run.run_id], WHEN)
    assert ledger.dead_letter(item.id) == letter
    assert not {"patient_key", "resource_id"} & set(letter._mapping)


def test_the_last_eight_runs_are_kept(ledger_engine: Engine, make) -> None:
    ledger = Ledger(ledger_engine, max_attempts=99)
    ledger.record([make(0)])
    taken = []
    for _ in range(11):
        run = ledger.take_run(NOTE, 1)
        assert run is not None
        taken.append(run.run_id)
        [item] = ledger.claim(run.run_id, 60)
        ledger.give_back(item)
    with ledger_engine.connect() as connection:
        assert connection.execute(text("SELECT tried_in FROM work")).scalar_one() == taken[-8:]


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (Chosen(), set()),
        (Chosen(scenario=NOTE), {"in_visit.watch"}),
        (Chosen(error_class=ErrorClass.FHIR_REJECTED), {NOTE}),
        (Chosen(NOTE, ErrorClass.FHIR_REJECTED), {NOTE, "in_visit.watch"}),
    ],
)
def test_many_are_decided_on_at_once(ledger: Ledger, make, chosen: Chosen, left: set[str]) -> None:
    park(ledger, make(0, patient="a"))
    park(ledger, make(1, patient="b", scenarios=("in_visit.watch",)), ErrorClass.FHIR_REJECTED)
    assert {letter.scenario for letter in ledger.dead_letters(chosen)} == {NOTE, "in_visit.watch"} - left
    assert ledger.dead_letter_count(chosen) == 2 - len(left)
    assert ledger.decide_dead_letters(chosen, State.DISCARDED, by="wu", why="x") == 2 - len(left)
    assert {letter.scenario for letter in ledger.dead_letters()} == left
    assert ledger.account().unaccounted == 0


def test_what_is_given_up_keeps_no_drafts(ledger: Ledger, ledger_engine: Engine, make) -> None:
    ledger.record([make(0)])
    run = ledger.take_run(NOTE, 1)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    item = ledger.inferred(item, Inference({"drafts": ["a patient's"]}, {}))
    ledger.failed(item, StepFailed(ErrorClass.FHIR_REJECTED, "no"))
    ledger.decide_dead_letter(item.id, State.DISCARDED, by="wu", why="x")
    with ledger_engine.connect() as connection:
        assert connection.execute(text("SELECT drafts FROM work")).scalar_one() is None


def test_a_dead_letter_is_decided_on_once_and_only_so(ledger: Ledger, make) -> None:
    id_ = park(ledger, make(0))
    with pytest.raises(LedgerError, match="retried or discarded"):
        ledger.decide_dead_letter(id_, State.WRITTEN, by="wu", why="x")
    ledger.decide_dead_letter(id_, State.WAITING, by="wu", why="x")
    for late in (
        lambda: ledger.decide_dead_letter(id_, State.DISCARDED, by="wu", why="x"),
        lambda: ledger.dead_letter(id_),
    ):
        with pytest.raises(LedgerError, match="not a dead letter"):
            late()


# --- poison -----------------------------------------------------------------------------------------------------------


def test_poison_is_listed_with_its_place_its_reason_and_its_copy(ledger: Ledger, make) -> None:
    ledger.record([make(0), poison(1), poison(2, PoisonReason.TOMBSTONE)])
    first, second = ledger.poison()
    assert (first.position, first.reason, first.copy, first.record_at) == (
        Position("events", 0, 1),
        PoisonReason.NOT_JSON,
        Position("events.dead-letters", 0, 101),
        WHEN,
    )
    assert ledger.poison(PoisonReason.TOMBSTONE) == [second]
    assert ledger.poison_one(first.id) == first
    assert list(ledger.each_poison()) == [first, second]


def test_poison_read_again_after_a_rewind_is_one_row_and_another_at_its_place_is_another(
    ledger: Ledger,
) -> None:
    ledger.record([poison(0), poison(1)])
    ledger.rewind("events", 0, 0)
    ledger.record([poison(0), poison(1, at=datetime(2026, 2, 2, tzinfo=UTC))])
    assert [row.position.offset for row in ledger.poison()] == [0, 1, 1]
    assert ledger.account().unaccounted == 0


def test_poison_is_counted_by_reason_and_the_count_never_goes_back(ledger: Ledger, ledger_engine: Engine, make) -> None:
    def counted() -> tuple[dict[str, float], dict[str, int]]:
        now = snapshot(ledger_engine)
        samples = [sample for sample in now.samples if sample.name == "careloom_poison_records_total"]
        return {s.labels["poison_reason"]: s.value for s in samples}, dict(now.poison_open)

    ledger.record([poison(0), poison(1), poison(2, PoisonReason.TOO_DEEP)])
    assert counted() == ({"not_json": 2, "too_deep": 1}, {"not_json": 2, "too_deep": 1})
    ledger.discard_all_poison(PoisonReason.NOT_JSON, by="wu", why="x")
    assert counted() == ({"not_json": 2, "too_deep": 1}, {"too_deep": 1})


def test_two_dispatchers_that_count_the_same_reasons_do_not_lock_each_other_out(ledger: Ledger) -> None:
    def records(partitions: tuple[int, ...], start: int) -> list[Incoming]:
        return [
            replace(poison(offset, reason), position=Position("events", partition, offset))
            for partition in partitions
            for offset, reason in enumerate((PoisonReason.NOT_JSON, PoisonReason.TOO_DEEP) * 3, start=start)
        ]

    barrier = threading.Barrier(2)
    failed: list[Exception] = []

    def dispatcher(partitions: tuple[int, ...]) -> None:
        barrier.wait()
        try:
            for round_ in range(15):
                ledger.record(records(partitions, 6 * round_))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=dispatcher, args=(mine,)) for mine in ((0, 1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    account = ledger.account()
    assert (account.poison, account.unaccounted, ledger.poison_count()) == (3 * 90, 0, 3 * 90)


@pytest.fixture
def recorded(ledger: Ledger, make) -> Callable[..., Recorded]:
    """Has the poison at an offset recorded as the event that `make` makes."""

    def record(offset: int, **event: Any) -> Recorded:
        [row] = [row for row in ledger.poison() if row.position.offset == offset]
        found = make(offset, **event).event
        return ledger.poison_recorded(row.id, found, [Match(NOTE, "1", "in_visit")], by="wu", why="mended")

    return record


def test_poison_that_is_an_event_now_is_recorded_once_and_the_account_holds(ledger: Ledger, make, recorded) -> None:
    ledger.record([make(0, event_id="known"), poison(1), poison(2)])
    assert recorded(1) == Recorded(events=1, duplicates=0, poison=0, work=1)
    assert recorded(2, event_id="known") == Recorded(events=0, duplicates=1, poison=0, work=0)
    account = ledger.account()
    assert (account.events, account.duplicates, account.poison, account.matches) == (2, 1, 2, 2)
    assert account.unaccounted == 0
    assert ledger.poison() == []


def test_poison_that_somebody_else_decided_on_is_left_alone(ledger: Ledger, recorded, make) -> None:
    ledger.record([poison(0)])
    [row] = ledger.poison()
    ledger.discard_poison(row.id, by="wu", why="x")
    for late in (
        lambda: ledger.poison_recorded(row.id, make(0).event, [], by="wu", why="x"),
        lambda: ledger.discard_poison(row.id, by="wu", why="x"),
        lambda: ledger.poison_one(row.id),
    ):
        with pytest.raises(LedgerError, match=f"p{row.id} is no poison"):
            late()
    assert ledger.account().unaccounted == 0


def test_poison_that_is_still_none_stays_with_what_was_found_this_time(ledger: Ledger) -> None:
    ledger.record([poison(0)])
    [row] = ledger.poison()
    ledger.poison_again(row.id, PoisonReason.NOT_STORABLE, by="wu", why="the bridge is mended")
    [again] = ledger.poison()
    assert (again.tries, again.reason, again.note) == (1, "not_storable", "tried by wu: the bridge is mended")


def test_who_was_shown_what_stands_in_the_ledger(ledger: Ledger, ledger_engine: Engine) -> None:
    ledger.disclosed("poison 3", by="wu", why="asked by the interface team")
    with ledger_engine.connect() as connection:
        [row] = connection.execute(text("SELECT by, what, why, at <= now() AS past FROM disclosures"))
    assert row == ("wu", "poison 3", "asked by the interface team", True)
