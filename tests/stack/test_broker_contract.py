"""What careloom asks of a broker, tried on each that the stack can start, through the client that careloom uses.

What Tansu does not keep is marked as an expected failure, strictly: should a new version keep it, this file says so.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from pipelines.stack import kafka as apache
from pipelines.stack import processes
from pipelines.stack.kafka import ApacheKafka
from pipelines.stack.settings import keep
from pipelines.stack.supervisor import Supervisor
from pipelines.stack.tansu import Tansu

pytestmark = pytest.mark.stack

#: Test -> why it fails on Tansu.
NOT_ON_TANSU = {
    "test_the_end_of_each_partition_is_told": "ListOffsets(latest) is wrong: take the high watermark of a fetch",
    "test_kill_9_loses_nothing_acknowledged_or_committed_and_an_idempotent_producer_goes_on_through_it": (
        "memory only: a restart forgets everything"
    ),
}


class Broker:
    """A running broker and clients for it."""

    def __init__(self, name: str, bootstrap: str, supervisor: Supervisor) -> None:
        self.name = name
        self.bootstrap = bootstrap
        self.supervisor = supervisor
        self._clients: list[Any] = []

    def topic(self, partitions: int = 1) -> str:
        """A new topic."""
        name = f"contract.{uuid.uuid4().hex}"
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        admin.create_topics(
            {name: {"num_partitions": partitions, "replication_factor": 1, "configs": {"max.message.bytes": "9000000"}}}
        )
        admin.wait_for_topics([name])
        admin.close()
        return name

    def has(self, topic: str) -> bool:
        """Whether the topic is there."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            return topic in admin.list_topics()
        finally:
            admin.close()

    def producer(self, **settings: Any) -> KafkaProducer:
        """As the gateway's: idempotent, acks=all."""
        return self._kept(
            KafkaProducer(
                bootstrap_servers=self.bootstrap,
                acks="all",
                enable_idempotence=True,
                max_request_size=9_000_000,
                delivery_timeout_ms=60_000,
                request_timeout_ms=10_000,
                **settings,
            )
        )

    def consumer(self, **settings: Any) -> KafkaConsumer:
        """As the dispatcher's: commits by hand, from the beginning where nothing is committed."""
        return self._kept(
            KafkaConsumer(
                bootstrap_servers=self.bootstrap,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                session_timeout_ms=6000,
                heartbeat_interval_ms=200,
                fetch_max_wait_ms=20,
                **settings,
            )
        )

    def _kept(self, client: Any) -> Any:
        self._clients.append(client)
        return client

    def close_clients(self) -> None:
        """Close what the test opened."""
        while self._clients:
            client = self._clients.pop()
            client.close() if isinstance(client, KafkaConsumer) else client.close(timeout=1)


@pytest.fixture(scope="module", params=["apache", "tansu"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    if request.param == "apache" and (why_not := apache.missing()):
        pytest.skip(why_not)
    folder = tmp_path_factory.mktemp(request.param)
    kept = keep(folder, usual_ports=False)
    part = ApacheKafka(kept) if request.param == "apache" else Tansu(kept)
    stack_id = uuid.uuid4().hex
    supervisor = Supervisor(stack_id, folder / "logs")
    try:
        part.prepare()
        for program in part.programs():
            supervisor.start(program)
        yield Broker(request.param, part.bootstrap, supervisor)
    finally:
        supervisor.stop()
    assert processes.marked(stack_id) == []


@pytest.fixture
def broker(running: Broker, request: pytest.FixtureRequest) -> Iterator[Broker]:
    if running.name == "tansu" and (reason := NOT_ON_TANSU.get(request.function.__name__)):
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    yield running
    running.close_clients()


def read(consumer: KafkaConsumer, count: int, patience: float = 30) -> list[Any]:
    """The next `count` records, or as many as come."""
    records: list[Any] = []
    deadline = time.monotonic() + patience
    while len(records) < count and time.monotonic() < deadline:
        for batch in consumer.poll(timeout_ms=200).values():
            records += batch
    return records


def test_acknowledged_records_have_consecutive_offsets_and_keep_their_order(broker: Broker) -> None:
    topic, producer = broker.topic(), broker.producer(linger_ms=5)
    futures = [producer.send(topic, value=str(number).encode()) for number in range(200)]
    assert [future.get(timeout=30).offset for future in futures] == list(range(200))

    consumer = broker.consumer()
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    assert [int(record.value) for record in read(consumer, 200)] == list(range(200))


def test_a_key_always_goes_to_one_partition(broker: Broker) -> None:
    topic, producer = broker.topic(6), broker.producer()
    keys = [f"patient-{number % 20}".encode() for number in range(100)]
    sent = [(key, producer.send(topic, key=key, value=b"x")) for key in keys]
    places: dict[bytes, set[int]] = {}
    for key, future in sent:
        places.setdefault(key, set()).add(future.get(timeout=30).partition)
    assert all(len(partitions) == 1 for partitions in places.values())
    assert len(set.union(*places.values())) > 1


def test_bytes_keys_and_headers_come_back_as_they_went(broker: Broker) -> None:
    topic, producer = broker.topic(), broker.producer()
    value, headers = bytes(range(256)) * 3, [("ce_id", b"1"), ("empty", b""), ("ce_id", "\u5f20".encode())]
    producer.send(topic, key=b"\x00\xff", value=value, headers=headers).get(timeout=30)
    consumer = broker.consumer()
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    record = read(consumer, 1)[0]
    assert (record.key, record.value, [tuple(header) for header in record.headers]) == (b"\x00\xff", value, headers)


def test_a_record_of_eight_megabytes_is_taken(broker: Broker) -> None:
    topic, producer = broker.topic(), broker.producer()
    value = b"\xa5" * (8 * 1024 * 1024)
    producer.send(topic, value=value).get(timeout=60)
    consumer = broker.consumer(max_partition_fetch_bytes=9_000_000, fetch_max_bytes=20_000_000)
    consumer.assign([TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    assert read(consumer, 1)[0].value == value


def test_reading_begins_at_the_offset_that_is_asked_for(broker: Broker) -> None:
    topic, producer = broker.topic(), broker.producer()
    for number in range(20):
        producer.send(topic, value=str(number).encode())
    producer.flush(timeout=30)
    consumer = broker.consumer()
    partition = TopicPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 17)
    assert [record.offset for record in read(consumer, 3)] == [17, 18, 19]
    consumer.seek(partition, 3)
    assert read(consumer, 1)[0].value == b"3"


def test_the_beginning_of_a_partition_is_told(broker: Broker) -> None:
    topic = broker.topic()
    partition = TopicPartition(topic, 0)
    assert broker.consumer().beginning_offsets([partition]) == {partition: 0}


def test_the_end_of_each_partition_is_told(broker: Broker) -> None:
    topic, producer = broker.topic(2), broker.producer()
    for _ in range(7):
        producer.send(topic, value=b"x", partition=0)
    producer.flush(timeout=30)
    ends = broker.consumer().end_offsets([TopicPartition(topic, 0), TopicPartition(topic, 1)])
    assert {partition.partition: end for partition, end in ends.items()} == {0: 7, 1: 0}


def test_a_group_goes_on_behind_what_was_committed(broker: Broker) -> None:
    topic, producer, group = broker.topic(2), broker.producer(), f"group-{uuid.uuid4().hex}"
    for number in range(10):
        producer.send(topic, value=str(number).encode(), partition=0)
    producer.flush(timeout=30)
    first = broker.consumer(group_id=group)
    first.subscribe([topic])
    assert len(read(first, 10)) == 10
    first.commit({TopicPartition(topic, 0): OffsetAndMetadata(6, "", -1)})
    first.close()

    second = broker.consumer(group_id=group)
    second.subscribe([topic])
    assert [record.offset for record in read(second, 4)] == [6, 7, 8, 9]


def test_kill_9_loses_nothing_acknowledged_or_committed_and_an_idempotent_producer_goes_on_through_it(
    broker: Broker,
) -> None:
    topic, producer, group = broker.topic(), broker.producer(retry_backoff_ms=100), f"group-{uuid.uuid4().hex}"
    partition = TopicPartition(topic, 0)
    futures = [producer.send(topic, value=str(number).encode()) for number in range(50)]
    futures[-1].get(timeout=30)
    before = broker.consumer(group_id=group)
    before.assign([partition])
    before.commit({partition: OffsetAndMetadata(20, "", -1)})

    broker.supervisor.kill("kafka")
    futures += [producer.send(topic, value=str(number).encode()) for number in range(50, 100)]
    broker.supervisor.wait_healthy("kafka")
    assert broker.has(topic)
    for future in futures:
        future.get(timeout=60)

    after = broker.consumer(group_id=group)
    after.assign([partition])
    assert [int(record.value) for record in read(after, 80)] == list(range(20, 100))
    assert after.end_offsets([partition]) == {partition: 100}, "nothing is there twice"
