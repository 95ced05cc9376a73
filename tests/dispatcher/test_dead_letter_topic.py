"""The dead-letter topic on a real broker: nothing of a record is lost, also when a dispatcher is killed in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from pipelines.config import Config
from pipelines.dispatcher.backoff import Backoff
from pipelines.dispatcher.intake import Intake
from pipelines.dispatcher.matching import Reader
from pipelines.dispatcher.pressure import Pressure
from pipelines.errors import CareloomError, PoisonReason
from pipelines.kafka.dead_letter_topic import DeadLetterTopic, original
from pipelines.kafka.records import RawRecord, Records
from pipelines.ledger import Ledger, Match, Position
from pipelines.replay.poison_retry import Outcome, again, find
from pipelines.stack.settings import toml

pytestmark = pytest.mark.stack

MATCH = Match("post_visit.follow_up", "1", "post_visit")
CANARY = "王小明"


@contextmanager
def reading(config: Config, ledger: Ledger) -> Iterator[None]:
    stop = threading.Event()
    reader = Reader({"Encounter"}, lambda resource: (MATCH,))
    made = Intake(config, ledger, reader, Pressure(10_000), lambda: None, Backoff(0.01, 0.1))
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def records(config: Config) -> Iterator[Records]:
    made = Records(config.kafka)
    yield made
    made.close()


@pytest.fixture
def raw(config: Config) -> Iterator[Callable[..., None]]:
    """Writes records as they are: `raw(value=b"{", key=None, headers=[])`."""
    from pipelines.kafka.topics import ensure_topic

    ensure_topic(config)
    producer = KafkaProducer(bootstrap_servers=config.kafka.bootstrap, acks="all")

    def write(**parts: Any) -> None:
        producer.send(config.kafka.topic, **parts).get(20)

    yield write
    producer.close()


def copies(config: Config) -> list[Any]:
    """All that the dead-letter topic holds."""
    consumer = KafkaConsumer(bootstrap_servers=config.kafka.bootstrap, auto_offset_reset="earliest")
    partition = TopicPartition(config.kafka.dead_letters, 0)
    consumer.assign([partition])
    end = consumer.end_offsets([partition])[partition]
    found: list[Any] = []
    while consumer.position(partition) < end:
        found += consumer.poll(timeout_ms=500).get(partition, [])
    consumer.close()
    return found


def test_poison_of_every_kind_is_copied_with_its_place_and_reason_and_then_stands_in_the_ledger(
    config: Config, ledger: Ledger, send, raw, until, caplog
):
    raw(value=f"{CANARY} is no JSON".encode(), key=b"stranger", headers=[("x", b"\xff\x00")])
    raw(value=None, key=b"0" * 32)
    send(1, raw=b"[1]")
    send(1, raw=b'{"a":' * 3000)
    send(1, raw=f'"{CANARY}'.encode())
    send(2, first=1)
    with reading(config, ledger):
        until(lambda: ledger.account().read == 7)
    account = ledger.account()
    assert (account.events, account.poison, account.unaccounted) == (2, 5, 0)
    rows = {row.position: row for row in ledger.poison()}
    assert sorted(row.reason for row in rows.values()) == [
        "no_envelope",
        "no_envelope",
        "not_a_resource",
        "not_json",
        "too_deep",
    ]
    made = copies(config)
    assert len(made) == 5
    for copy in made:
        headers = dict(copy.headers)
        place = Position(
            headers["careloom_dead_letter_topic"].decode(),
            int(headers["careloom_dead_letter_partition"]),
            int(headers["careloom_dead_letter_offset"]),
        )
        assert copy.key == f"{place.topic}/{place.partition}/{place.offset}".encode()
        assert rows[place].copy == Position(copy.topic, copy.partition, copy.offset)
        assert headers["careloom_dead_letter_reason"].decode() == rows[place].reason
        assert headers["careloom_dead_letter_careloom"]
    assert CANARY not in caplog.text


def test_a_copy_gives_the_record_back_byte_for_byte(config: Config, ledger: Ledger, raw, until, records: Records):
    raw(value=b"\x00\xffnot json", key=b"\x01\x02", headers=[("ce_id", b"\xfe"), ("ce_id", b"again")])
    raw(value=None, key=b"k", headers=[])
    raw(value=b"", key=None, headers=[("x", b"")])
    with reading(config, ledger):
        until(lambda: ledger.account().poison == 3)
    for row in ledger.poison():
        first = records.at(row.position)
        assert first is not None and row.copy is not None
        copy = records.at(row.copy)
        assert copy is not None
        assert original(copy) == first


def test_the_topic_keeps_its_records_as_long_as_the_configuration_says(config: Config, raw, ledger: Ledger, until):
    kafka = config.kafka.model_copy(update={"dead_letter_retention": 3600.0})
    with reading(config.model_copy(update={"kafka": kafka}), ledger):
        raw(value=b"{", key=None)
        until(lambda: ledger.account().poison == 1)
    admin = KafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    resource = ConfigResource(ConfigResourceType.TOPIC, config.kafka.dead_letters, configs=None)
    settings = admin.describe_configs([resource], config_filter="all")["topic"][config.kafka.dead_letters]
    admin.close()
    assert settings["retention.ms"]["value"] == "3600000"
    assert int(settings["max.message.bytes"]["value"]) > config.gateway.max_body_bytes


def test_what_is_no_copy_of_ours_is_told_so():
    with pytest.raises(CareloomError, match="something else writes"):
        original(RawRecord("dead", 0, 3, 0, b"k", b"v", [("careloom_dead_letter_topic", b"t")]))


def test_a_broker_that_is_not_there_is_said_to_be_away(config: Config):
    from pipelines.kafka.topics import BrokerUnavailable

    kafka = config.kafka.model_copy(update={"bootstrap": "127.0.0.1:9"})
    topic = DeadLetterTopic(config.model_copy(update={"kafka": kafka}), timeout=1.0)
    with pytest.raises(BrokerUnavailable):
        topic.copy([(RawRecord("t", 0, 0, 0, None, b"{", []), PoisonReason.NOT_JSON)])
    topic.close()


# --- read again -------------------------------------------------------------------------------------------------------


def encounters(resource: object) -> tuple[Match, ...]:
    return (MATCH,)


def test_poison_that_can_be_read_now_becomes_an_event_whose_bytes_are_where_it_stands(
    config: Config, ledger: Ledger, send, until, records: Records
):
    def broken(resource: object) -> tuple[Match, ...]:
        raise ZeroDivisionError

    stop = threading.Event()
    made = Intake(config, ledger, Reader({"Encounter"}, broken), Pressure(100), lambda: None, Backoff(0.01, 0.1))
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    send(1)
    until(lambda: ledger.account().poison == 1)
    stop.set()
    thread.join()
    [row] = ledger.poison()
    assert row.reason is PoisonReason.UNREADABLE
    assert again(ledger, records, Reader({"Encounter"}, broken), row, by="wu", why="x") is Outcome.STILL_POISON
    mended = Reader({"Encounter"}, encounters)
    assert again(ledger, records, mended, row, by="wu", why="x") is Outcome.RECORDED
    account = ledger.account()
    assert (account.events, account.poison, account.matches, account.unaccounted) == (1, 1, 1, 0)
    run = ledger.take_run(MATCH.scenario, 10)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    assert item.event.position == row.position


def test_where_retention_took_the_record_its_copy_is_read_and_the_payload_comes_from_there(
    config: Config, ledger: Ledger, send, until, records: Records
):
    from pipelines.kafka.payloads import KafkaPayloads

    with reading(config, ledger):
        send(1, raw=b"{")
        until(lambda: ledger.account().poison == 1)
    [row] = ledger.poison()
    admin = KafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    admin.delete_records({TopicPartition(row.position.topic, row.position.partition): -1})
    admin.close()
    found = find(records, row)
    assert found is not None and (found.at, found.record.value) == (row.copy, b"{")

    class Lenient(Reader):
        """Takes what is there for a resource, as a mended reader might."""

        def matches(self, event: Any, value: bytes | None) -> tuple[Match, ...]:
            return (MATCH,)

    assert again(ledger, records, Lenient({"Encounter"}, encounters), row, by="wu", why="x") is Outcome.RECORDED
    run = ledger.take_run(MATCH.scenario, 10)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    payloads = KafkaPayloads(config.kafka)
    assert payloads.get(item.event) == b"{"
    payloads.close()


def test_poison_that_nobody_has_any_more_is_gone_and_stays_to_be_decided_on(
    config: Config, ledger: Ledger, raw, until, records: Records
):
    with reading(config, ledger):
        raw(value=b"{", key=None)
        until(lambda: ledger.account().poison == 1)
    [row] = ledger.poison()
    assert row.copy is not None
    admin = KafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    for place in (row.position, row.copy):
        admin.delete_records({TopicPartition(place.topic, place.partition): -1})
    admin.close()
    assert again(ledger, records, Reader(set(), encounters), row, by="wu", why="x") is Outcome.GONE
    assert ledger.poison() == [row]


def test_a_place_that_never_was_has_no_record(config: Config, records: Records, raw):
    assert records.at(Position(config.kafka.topic, 0, 9_999)) is None
    assert records.at(Position(config.kafka.topic, 99, 0)) is None


# --- killed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spot", ["dispatcher.consumed", "dispatcher.dead_lettered", "dispatcher.recorded"])
def test_killed_around_the_copy_no_poison_is_lost_and_a_second_copy_is_recognisable(
    config: Config, ledger: Ledger, send, raw, until, tmp_path: Path, spot: str
):
    file = tmp_path / "careloom.toml"
    sections = config.model_dump(mode="json", exclude_defaults=True)
    sections["state_dir"] = str(tmp_path)
    sections["patient_salt"] = "salt"
    sections["ledger"]["url"] = config.ledger.url.get_secret_value()
    sections["airflow"]["password"] = config.airflow.password.get_secret_value()
    sections["sources"][0]["token"] = "t"
    file.write_text(toml(sections))
    send(2)
    raw(value=b"{", key=b"stranger")
    send(2, first=2)

    def dispatcher(fail_points: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "CARELOOM_CONFIG": str(file), "CARELOOM_FAIL_POINTS": fail_points}
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen([sys.executable, "-m", "pipelines.dispatcher"], env=environment, stderr=log)

    killed = dispatcher(spot)
    assert killed.wait(60) == -signal.SIGKILL
    process = dispatcher("")
    try:
        until(lambda: ledger.account().read == 5)
    finally:
        process.kill()
        process.wait()
    account = ledger.account()
    assert (account.events, account.poison, account.unaccounted) == (4, 1, 0)
    [row] = ledger.poison()
    made = copies(config)
    assert len({copy.key for copy in made}) == 1
    assert len(made) == (2 if spot == "dispatcher.dead_lettered" else 1)
    assert row.copy is not None and row.copy.offset == made[-1].offset
