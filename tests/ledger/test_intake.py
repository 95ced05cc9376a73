"""Kafka records into rows, each exactly once."""

from __future__ import annotations

import threading

import pytest

from pipelines.errors import ReadBeforeRewind
from pipelines.ledger import Incoming, Ledger, Position, Recorded, State
from pipelines.ledger.rows import Standing


def poison(offset: int) -> Incoming:
    return Incoming(Position("events", 0, offset), None)


def test_one_row_comes_of_each_event_and_scenario(ledger: Ledger, make, rows):
    recorded = ledger.record([make(0, scenarios=("in_visit.note", "in_visit.watch")), make(1, scenarios=())])
    assert recorded == Recorded(events=2, duplicates=0, poison=0, work=2)
    assert ledger.account().work == {State.WAITING: 2}


def test_records_that_come_again_are_passed_over(ledger: Ledger, make):
    batch = [make(0), make(1), make(2)]
    ledger.record(batch)
    assert ledger.record(batch) == Recorded(0, 0, 0, 0)
    assert ledger.record([*batch, make(3)]) == Recorded(1, 0, 0, 1)
    assert ledger.next_offset("events", 0) == 4
    assert ledger.account().unaccounted == 0


def test_an_event_that_comes_by_two_records_is_one(ledger: Ledger, make):
    recorded = ledger.record([make(0, event_id="e"), make(1, event_id="e"), make(0, event_id="e", partition=1)])
    assert recorded == Recorded(events=1, duplicates=2, poison=0, work=1)
    assert ledger.account().unaccounted == 0


def test_a_jump_in_the_offsets_is_counted_as_missing(ledger: Ledger, make):
    ledger.record([make(5)])
    assert ledger.record([make(9), make(12)]).missing == 3 + 2
    account = ledger.account()
    assert (account.read, account.events, account.missing, account.unaccounted) == (8, 3, 5, 0)


def test_poison_is_counted_and_passed(ledger: Ledger, make):
    assert ledger.record([poison(0), make(1), poison(2)]) == Recorded(1, 0, 2, 1)
    assert ledger.account().unaccounted == 0


def test_an_empty_batch_changes_nothing(ledger: Ledger):
    assert ledger.record([]) == Recorded(0, 0, 0, 0)
    assert ledger.next_offset("events", 0) is None


@pytest.mark.parametrize("to", [0, 2, 70])
def test_after_a_rewind_what_the_ledger_has_is_known_and_the_sum_is_right(ledger: Ledger, make, to: int):
    ledger.record([make(offset, event_id=f"e{offset}") for offset in range(5)])
    ledger.rewind("events", 0, to)
    recorded = ledger.record([make(to, event_id="e3"), make(to + 1, event_id="new")])
    assert (recorded.events, recorded.duplicates, recorded.missing) == (1, 1, 0)
    assert ledger.next_offset("events", 0) == to + 2
    assert ledger.account().unaccounted == 0


def test_two_dispatchers_that_read_the_same_records_make_one_row_of_each(ledger: Ledger, make):
    batches = [
        [make(offset, partition=partition) for partition in order for offset in range(start, start + 20)]
        for order in ((0, 1, 2), (2, 1, 0))
        for start in range(0, 100, 20)
    ]
    barrier = threading.Barrier(2)

    def dispatcher(mine: list[list[Incoming]]) -> None:
        barrier.wait()
        for batch in mine:
            ledger.record(batch)

    threads = [threading.Thread(target=dispatcher, args=(mine,)) for mine in (batches[:5], batches[5:])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    account = ledger.account()
    assert (account.events, account.matches, account.missing, account.unaccounted) == (300, 300, 0, 0)


def test_what_was_read_before_a_rewind_is_not_taken_after_it(ledger: Ledger, make):
    """A dispatcher that was paused with a batch, while the broker lost its data and another began anew."""
    ledger.record([make(offset) for offset in range(100)], {("events", 0): 0})
    ledger.rewind("events", 0, 0)
    ledger.record([make(0, event_id="new0")], {("events", 0): 1})
    with pytest.raises(ReadBeforeRewind):
        ledger.record([make(100), make(101)], {("events", 0): 0})
    assert ledger.record([make(1, event_id="new1")], {("events", 0): 1}).events == 1
    account = ledger.account()
    assert (account.events, account.missing, account.unaccounted) == (102, 0, 0)


def test_a_batch_of_which_one_partition_was_rewound_is_taken_not_at_all(ledger: Ledger, make):
    ledger.record([make(0), make(0, partition=1)])
    ledger.rewind("events", 1, 0)
    with pytest.raises(ReadBeforeRewind):
        ledger.record([make(1), make(1, partition=1)], {("events", 0): 0, ("events", 1): 0})
    assert ledger.account().events == 2


def test_of_two_that_see_the_same_loss_one_rewinds(ledger: Ledger, make):
    ledger.record([make(offset) for offset in range(5)])
    seen = ledger.standing("events", 0)
    assert ledger.rewind("events", 0, 0, seen.epoch)
    ledger.record([make(0, event_id="new")], {("events", 0): 1})
    assert not ledger.rewind("events", 0, 0, seen.epoch)
    assert ledger.standing("events", 0) == Standing(1, 1)


def test_that_the_group_had_an_offset_is_known_until_the_broker_loses_it(ledger: Ledger, make):
    ledger.committed_once("events", 0, 7)
    assert ledger.standing("events", 0) == Standing(7, 0, committed_once=True)
    ledger.record([make(9)])
    account = ledger.account()
    assert (account.read, account.missing, account.unaccounted) == (3, 2, 0)
    ledger.rewind("events", 0, 0)
    assert not ledger.standing("events", 0).committed_once
