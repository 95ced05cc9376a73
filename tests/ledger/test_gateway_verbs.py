"""What the gateway keeps in the ledger: event numbers, how far each source was searched, and which events are known."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pipelines.errors import LedgerError
from pipelines.ledger import Ledger, State


def test_the_first_number_of_a_subscription_misses_nothing(ledger: Ledger):
    assert ledger.event_number("hospital", "s1", 7) == 0


def test_numbers_that_are_jumped_over_are_counted_once(ledger: Ledger):
    ledger.event_number("hospital", "s1", 1)
    assert ledger.event_number("hospital", "s1", 2) == 0
    assert ledger.event_number("hospital", "s1", 6) == 3
    assert ledger.event_number("hospital", "s1", 6) == 0
    assert ledger.event_number("hospital", "s1", 4) == 0
    assert ledger.event_number("hospital", "s1", 7) == 0
    (row,) = ledger.subscription_gaps()
    assert (row.last_event_number, row.gaps, row.missed_events) == (7, 1, 3)


def test_a_subscription_that_is_made_anew_starts_over(ledger: Ledger):
    ledger.event_number("hospital", "s1", 50)
    assert ledger.event_number("hospital", "s1", 1) == 0
    assert ledger.event_number("hospital", "s1", 2) == 0
    assert ledger.event_number("hospital", "s1", 4) == 1


def test_subscriptions_and_sources_are_counted_each_by_itself(ledger: Ledger):
    for source, subscription in (("a", "s"), ("b", "s"), ("a", "t")):
        assert ledger.event_number(source, subscription, 5) == 0
    assert len(ledger.subscription_gaps()) == 3


def test_how_far_a_source_was_searched_never_goes_back(ledger: Ledger, make):
    now = make(0).event.received_at
    assert ledger.reconciled_until("hospital") is None
    ledger.set_reconciled_until("hospital", now)
    ledger.set_reconciled_until("hospital", now - timedelta(hours=1))
    assert ledger.reconciled_until("hospital") == now
    assert ledger.reconciled_until("another") is None


def test_known_events_are_told_from_unknown_ones(ledger: Ledger, make):
    ledger.record([make(0, event_id="a"), make(1, event_id="b")])
    assert ledger.known(["a", "c"]) == {"a"}
    assert ledger.known([]) == set()


@pytest.mark.parametrize("target", [State.RUNNING, State.WRITTEN, State.PARKED])
def test_a_dead_letter_is_retried_or_discarded_and_nothing_else(ledger: Ledger, target: State):
    with pytest.raises(LedgerError, match="retried or discarded"):
        ledger.decide_dead_letter(1, target, by="me", why="so")


def test_what_is_no_dead_letter_cannot_be_decided_on(ledger: Ledger, make):
    ledger.record([make(0)])
    with pytest.raises(LedgerError, match="dead-letters"):
        ledger.decide_dead_letter(1, State.WAITING, by="me", why="so")
