"""Marks of transactions that may be on their way: set with the confirmation, taken off by the next statement."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from pipelines.errors import LeaseLost
from pipelines.ledger import Incoming, Ledger, WorkItem, Written
from pipelines.ledger.on_wire import Sending

NOTE = Sending("model", "Composition", "note")
FLAG = Sending("rules", "Flag", "flag")


@pytest.fixture
def comes(ledger: Ledger, make: Callable[..., Incoming]) -> Callable[..., WorkItem]:
    """A version of the one Encounter comes, and its row is claimed: `comes(2)`."""

    def come(version: int, *, patient: str = "p") -> WorkItem:
        ledger.record([make(version, resource="r", version=str(version), updated=version, patient=patient)])
        run = ledger.take_run("in_visit.note", 10)
        assert run is not None
        (item,) = ledger.claim(run.run_id, 60)
        return item

    return come


def marks(engine: Engine) -> list[list[str]]:
    with engine.begin() as connection:
        found = connection.execute(text("SELECT on_wire FROM work ORDER BY id")).scalars()
        return [[mark.rpartition(" ")[0] for mark in row or ()] for row in found]


def test_a_confirmed_transaction_leaves_one_mark_however_often_it_is_confirmed_again(
    ledger: Ledger, ledger_engine: Engine, comes: Callable[..., WorkItem]
) -> None:
    item = comes(1)
    for _ in range(3):
        assert not ledger.confirm(item, 60, NOTE).superseded
    ledger.confirm(item, 60, FLAG)
    assert marks(ledger_engine) == [["model Composition note", "rules Flag flag"]]


def test_the_next_statement_takes_off_what_was_answered_and_leaves_the_rest(
    ledger: Ledger, ledger_engine: Engine, comes: Callable[..., WorkItem]
) -> None:
    item = comes(1)
    ledger.confirm(item, 60, FLAG)
    ledger.confirm(item, 60, NOTE)
    item.answered.add(FLAG.mark(item))
    ledger.rules_written(item, Written(("Flag/1",), 1, 0))
    assert marks(ledger_engine) == [["model Composition note"]]
    item.answered.add(NOTE.mark(item))
    ledger.stale(item)
    assert marks(ledger_engine) == [[]]


def test_who_lost_its_lease_marks_nothing(
    ledger: Ledger, ledger_engine: Engine, comes: Callable[..., WorkItem]
) -> None:
    item = replace(comes(1), lease="another")
    with pytest.raises(LeaseLost):
        ledger.confirm(item, 60, NOTE)
    assert marks(ledger_engine) == [[]]


def test_an_overtaken_row_marks_nothing_and_a_newer_one_finds_every_part_that_is_open(
    ledger: Ledger, ledger_engine: Engine, comes: Callable[..., WorkItem]
) -> None:
    older = comes(1)
    ledger.confirm(older, 60, FLAG)
    ledger.confirm(older, 60, NOTE)
    newer = comes(2, patient="q")
    confirmed = ledger.confirm(older, 60, NOTE)
    assert confirmed.superseded
    assert marks(ledger_engine)[0] == ["rules Flag flag"]
    found = ledger.confirm(newer, 60, NOTE)
    assert not found.superseded
    assert [(one.identity, one.sending) for one in found.unsettled] == [(older.identity, FLAG)]


def test_tries_without_an_answer_do_not_grow_without_bound(
    ledger: Ledger, ledger_engine: Engine, comes: Callable[..., WorkItem]
) -> None:
    item = comes(1)
    for number in range(40):
        ledger.confirm(item, 60, Sending("model", "Composition", f"n{number}"))
    (kept,) = marks(ledger_engine)
    assert len(kept) <= 16
    assert kept[-1] == "model Composition n39"
