"""Kafka into the ledger on a real broker: exact, whatever breaks in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.errors import KafkaError
from sqlalchemy import Engine, text
from sqlalchemy.exc import DataError, OperationalError

from monitoring import metrics
from pipelines.config import Config
from pipelines.dispatcher import consumer, session
from pipelines.dispatcher.backoff import Backoff
from pipelines.dispatcher.intake import Intake
from pipelines.dispatcher.matching import Reader
from pipelines.dispatcher.pressure import Pressure
from pipelines.ledger import Incoming, Ledger, Match, Recorded

pytestmark = pytest.mark.stack

MATCH = Match("post_visit.follow_up", "1", "post_visit")


@contextmanager
def reading(config: Config, ledger: Ledger, pressure: Pressure | None = None) -> Iterator[Pressure]:
    """An intake in a thread of its own."""
    pressure = pressure or Pressure(10_000)
    stop = threading.Event()
    reader = Reader({"Encounter"}, lambda resource: (MATCH,))
    made = Intake(config, ledger, reader, pressure, lambda: None, Backoff(0.01, 0.1))
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        yield pressure
    finally:
        stop.set()
        thread.join()


def another(config: Config) -> Config:
    """The configuration of a second dispatcher on this machine."""
    port = config.dispatcher.metrics_port
    return config.model_copy(update={"dispatcher": config.dispatcher.model_copy(update={"metrics_port": port + 1})})


def committed(config: Config) -> int:
    admin = KafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    try:
        groups = admin.list_group_offsets([config.kafka.group])
        return sum(offset.offset for offset in groups[config.kafka.group].values() if offset.offset > 0)
    finally:
        admin.close()


def test_every_record_becomes_a_row_and_then_its_offset_is_committed(config: Config, ledger: Ledger, send, until):
    with reading(config, ledger):
        send(20)
        until(lambda: ledger.account().events == 20)
        until(lambda: committed(config) == 20)
    assert ledger.account().matches == 20
    assert ledger.account().unaccounted == 0


def test_poison_in_the_middle_stops_nobody(config: Config, ledger: Ledger, send, until):
    send(3)
    send(1, first=3, raw=b"{")
    send(3, first=4)
    with reading(config, ledger):
        until(lambda: ledger.account().read == 7)
    account = ledger.account()
    assert (account.events, account.poison, account.unaccounted) == (6, 1, 0)


def test_it_says_when_it_last_moved_and_that_stands_still_while_a_strangers_transaction_holds_the_events(
    config: Config, ledger: Ledger, ledger_engine: Engine, send, until
):
    def moved() -> float:
        return float(metrics.INTAKE_MOVED._value.get())

    with reading(config, ledger):
        send(1)
        until(lambda: ledger.account().events == 1)
        before = moved()
        until(lambda: moved() > before)
        with ledger_engine.connect() as stranger:
            stranger.execute(text("LOCK TABLE events IN EXCLUSIVE MODE"))
            send(1, first=1)
            until(lambda: _waits_for_a_lock(ledger_engine))
            stood = moved()
            time.sleep(2)
            assert moved() == stood
            stranger.rollback()
        until(lambda: moved() > stood)
        until(lambda: ledger.account().events == 2)


def _waits_for_a_lock(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.execute(text("SELECT 1 FROM pg_locks WHERE NOT granted LIMIT 1")).first())


class Breaking(Ledger):
    """A ledger whose `record` breaks as the test says, before or after the rows are in."""

    before: Callable[[Sequence[Incoming]], None] = staticmethod(lambda batch: None)
    after: Callable[[Sequence[Incoming]], None] = staticmethod(lambda batch: None)

    def record(self, batch: Sequence[Incoming], epochs: Mapping[tuple[str, int], int] | None = None) -> Recorded:
        self.before(batch)
        recorded = super().record(batch, epochs)
        self.after(batch)
        return recorded


def lost(times: int) -> Callable[[Sequence[Incoming]], None]:
    left = iter(range(times))

    def break_(batch: Sequence[Incoming]) -> None:
        if next(left, None) is not None:
            raise OperationalError("x", None, Exception("the server is gone"))

    return break_


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_ledger_that_is_away_delays_and_loses_nothing(config: Config, ledger_engine, send, until, when: str):
    ledger = Breaking(ledger_engine)
    setattr(ledger, when, lost(5))
    send(10)
    with reading(config, ledger):
        until(lambda: committed(config) == 10)
    account = ledger.account()
    assert (account.read, account.events, account.matches, account.unaccounted) == (10, 10, 10, 0)


def test_what_postgresql_cannot_keep_is_poison_and_its_neighbours_are_not(config: Config, ledger_engine, send, until):
    def refuse(batch: Sequence[Incoming]) -> None:
        if any(item.event is not None and item.event.resource_id == "e4" for item in batch):
            raise DataError("x", None, Exception("cannot be kept"))

    ledger = Breaking(ledger_engine)
    ledger.before = refuse  # type: ignore[method-assign]
    send(10)
    with reading(config, ledger):
        until(lambda: ledger.account().read == 10)
    account = ledger.account()
    assert (account.events, account.poison, account.unaccounted) == (9, 1, 0)


def test_a_commit_that_fails_costs_nothing(config: Config, ledger: Ledger, send, until, monkeypatch):
    real = consumer.KafkaConsumer

    class NoCommits(real):  # type: ignore[misc, valid-type]
        def commit(self, *arguments: Any, **named: Any) -> None:
            raise KafkaError("no coordinator")

    monkeypatch.setattr(consumer, "KafkaConsumer", NoCommits)
    send(10)
    with reading(config, ledger):
        until(lambda: ledger.account().events == 10)
    assert committed(config) == 0
    monkeypatch.setattr(consumer, "KafkaConsumer", real)
    send(5, first=10)
    with reading(config, ledger):
        until(lambda: ledger.account().events == 15)
    account = ledger.account()
    assert (account.read, account.events, account.matches, account.unaccounted) == (15, 15, 15, 0)


def test_a_commit_that_fails_is_made_up_for_though_nothing_more_comes(
    config: Config, ledger: Ledger, send, until, monkeypatch
):
    """As under load, when the group was about to rebalance: with nothing to read it used to stay behind for ever."""
    real, left = consumer.KafkaConsumer, iter(range(3))

    class FewCommits(real):  # type: ignore[misc, valid-type]
        def commit(self, *arguments: Any, **named: Any) -> None:
            if next(left, None) is not None:
                raise KafkaError("rebalancing")
            super().commit(*arguments, **named)

    monkeypatch.setattr(consumer, "KafkaConsumer", FewCommits)
    monkeypatch.setattr(session, "_COMMIT_AGAIN", 0.01)
    send(10)
    with reading(config, ledger):
        until(lambda: committed(config) == 10)
    assert ledger.account().read == 10


def test_a_dispatcher_that_ended_between_rows_and_commit_brings_the_group_up_when_it_is_back(
    config: Config, ledger: Ledger, send, until, monkeypatch
):
    real = consumer.KafkaConsumer
    send(10)
    with reading(config, ledger):
        until(lambda: committed(config) == 10)

    class NoCommits(real):  # type: ignore[misc, valid-type]
        def commit(self, *arguments: Any, **named: Any) -> None:
            raise KafkaError("no coordinator")

    monkeypatch.setattr(consumer, "KafkaConsumer", NoCommits)
    send(5, first=10)
    with reading(config, ledger):
        until(lambda: ledger.account().events == 15)
    monkeypatch.setattr(consumer, "KafkaConsumer", real)
    with reading(config, ledger):
        until(lambda: committed(config) == 15)
    assert ledger.account().read == 15


def lag() -> float:
    """Records that wait in Kafka, as the dispatcher shows it."""
    return sum(sample.value for metric in metrics.CONSUMER_LAG.collect() for sample in metric.samples)


def test_while_too_much_waits_nothing_is_read_and_then_it_is(config: Config, ledger: Ledger, send, until):
    with reading(config, ledger) as pressure:
        send(5)
        until(lambda: ledger.account().events == 5)
        pressure.measured(20_000)
        until(lambda: metrics.READING_HELD_BACK._value.get() == 1)
        send(5, first=5)
        until(lambda: lag() == 5)  # nothing is fetched, and yet it is known
        with pytest.raises(AssertionError, match="never came"):
            until(lambda: ledger.account().events > 5, 1.0)
        pressure.measured(0)
        until(lambda: ledger.account().events == 10)


def test_two_dispatchers_share_the_partitions_and_one_takes_over_when_the_other_ends(
    config: Config, ledger: Ledger, send, until
):
    with reading(config, ledger):
        send(30)
        with reading(another(config), ledger):
            send(30, first=30)
            until(lambda: ledger.account().events == 60)
        send(30, first=60)
        until(lambda: ledger.account().events == 90)
    account = ledger.account()
    assert (account.events, account.matches, account.missing, account.unaccounted) == (90, 90, 0, 0)


def test_a_topic_that_is_made_anew_is_read_from_its_beginning(config: Config, ledger: Ledger, send, until):
    send(30)
    with reading(config, ledger):
        until(lambda: committed(config) == 30)
    _make_anew(config)
    send(60, first=100)  # more than before: the offsets alone do not tell
    with reading(config, ledger):
        until(lambda: ledger.account().events == 90)
    account = ledger.account()
    assert (account.matches, account.duplicates, account.missing, account.unaccounted) == (90, 0, 0, 0)


def test_records_that_retention_took_are_counted_as_missing(config: Config, ledger: Ledger, send, until):
    from kafka import TopicPartition

    send(10)
    with reading(config, ledger):
        until(lambda: committed(config) == 10)
    send(30, first=10)
    admin = KafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    partitions = [TopicPartition(config.kafka.topic, p) for p in range(3)]
    admin.delete_records(dict.fromkeys(partitions, -1))
    admin.close()
    send(30, first=40)
    with reading(config, ledger):
        until(lambda: ledger.account().events == 40)
    account = ledger.account()
    assert (account.missing, account.unaccounted) == (30, 0)


def _make_anew(config: Config) -> None:
    import time

    from pipelines.kafka.topics import ensure_topic

    admin = KafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    admin.delete_topics([config.kafka.topic])
    while config.kafka.topic in admin.list_topics():
        time.sleep(0.05)
    admin.close()
    ensure_topic(config)
