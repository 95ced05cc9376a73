"""Poison is copied before it counts as read, whatever the dead-letter topic says to that."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from monitoring import metrics
from pipelines.dispatcher.backoff import Backoff
from pipelines.dispatcher.poison import PoisonBox
from pipelines.errors import PoisonReason
from pipelines.kafka.dead_letter_topic import CopyRefused
from pipelines.kafka.records import RawRecord
from pipelines.kafka.topics import BrokerUnavailable
from pipelines.ledger import EventRow, Incoming, Poison, Position

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Topic:
    """A dead-letter topic of memory, which fails as it is told: `failures` are raised one after the other."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.refused: set[int] = set()
        self.copied: list[tuple[int, PoisonReason]] = []
        self.closed = False

    def copy(self, records: Sequence[tuple[Any, PoisonReason]]) -> list[Position]:
        if self.failures:
            raise self.failures.pop(0)
        if any(record.offset in self.refused for record, _ in records):
            raise CopyRefused("too large")
        self.copied += [(record.offset, reason) for record, reason in records]
        return [Position("dead", 0, record.offset) for record, _ in records]

    def close(self) -> None:
        self.closed = True


def record(offset: int) -> RawRecord:
    return RawRecord("t", 0, offset, 0, b"k", b"{", [])


def bad(offset: int) -> Incoming:
    return Incoming(Position("t", 0, offset), None, poison=Poison(PoisonReason.NOT_JSON, NOW))


def good(offset: int) -> Incoming:
    at = Position("t", 0, offset)
    return Incoming(at, EventRow("e", "h", "R4", "Encounter", "e", "1", None, "written", "p", at, NOW, NOW))


def box(topic: Topic, *, patience: float = 30.0) -> PoisonBox:
    return PoisonBox(topic, Backoff(1e-9, 1e-9), patience=patience)


def test_only_poison_is_copied_and_each_knows_the_place_of_its_copy() -> None:
    topic = Topic()
    read = [good(0), bad(1), good(2), bad(3)]
    found = box(topic).copied([record(n) for n in range(4)], read, threading.Event())
    assert found is not None
    assert topic.copied == [(1, PoisonReason.NOT_JSON), (3, PoisonReason.NOT_JSON)]
    assert [item.poison.copy for item in found] == [None, Position("dead", 0, 1), None, Position("dead", 0, 3)]
    assert [item.position.offset for item in found] == [0, 1, 2, 3]


def test_without_poison_the_topic_is_not_asked() -> None:
    topic = Topic(BrokerUnavailable("away"))
    assert box(topic).copied([record(0)], [good(0)], threading.Event()) == [good(0)]


def test_while_the_broker_is_away_nothing_goes_on_and_then_it_does() -> None:
    topic = Topic(*[BrokerUnavailable("away")] * 5)
    found = box(topic, patience=0.0).copied([record(0)], [bad(0)], threading.Event())
    assert found is not None and found[0].poison.copy == Position("dead", 0, 0)
    assert topic.failures == []


def test_asked_to_stop_meanwhile_nothing_counts_as_read() -> None:
    stop = threading.Event()
    stop.set()
    assert box(Topic(BrokerUnavailable("away"))).copied([record(0)], [bad(0)], stop) is None


def test_a_broker_that_refuses_for_a_moment_is_asked_again() -> None:
    topic = Topic(CopyRefused("not allowed"), CopyRefused("not allowed"))
    found = box(topic).copied([record(0)], [bad(0)], threading.Event())
    assert found is not None and found[0].poison.copy is not None


def test_what_is_never_taken_goes_on_without_a_copy_and_its_neighbours_with_theirs() -> None:
    topic = Topic()
    topic.refused = {1}
    refused = metrics.DEAD_LETTER_COPIES.labels(metrics.CopyOutcome.REFUSED)
    before = refused._value.get()
    read = [bad(0), bad(1), bad(2)]
    found = box(topic, patience=0.0).copied([record(n) for n in range(3)], read, threading.Event())
    assert found is not None
    assert [item.poison.copy is not None for item in found] == [True, False, True]
    assert refused._value.get() == before + 1


def test_after_its_patience_a_refusing_broker_is_asked_once_a_batch() -> None:
    topic = Topic()
    topic.refused = set(range(10))
    made = box(topic, patience=0.0)
    for offset in range(3):
        found = made.copied([record(offset)], [bad(offset)], threading.Event())
        assert found is not None and found[0].poison.copy is None


def test_closing_it_closes_the_topic() -> None:
    topic = Topic()
    box(topic).close()
    assert topic.closed


@pytest.mark.parametrize("reason", PoisonReason)
def test_every_reason_is_one_of_the_metrics_label(reason: PoisonReason) -> None:
    assert reason.value in (metrics.LABELS["poison_reason"][0] or ())
