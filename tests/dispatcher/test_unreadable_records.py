"""Records that kafka-python cannot read, on a real broker: what stands before, beside and behind them is processed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.errors import CorruptRecordError
from sqlalchemy import Engine, text

from fhir_adapters.event import ClinicalEvent
from pipelines.config import Config
from pipelines.dispatcher import consumer
from pipelines.dispatcher.backoff import Backoff
from pipelines.dispatcher.intake import Intake
from pipelines.dispatcher.matching import Reader
from pipelines.dispatcher.pressure import Pressure
from pipelines.kafka.envelope import pack
from pipelines.kafka.payloads import KafkaPayloads
from pipelines.kafka.records import Records
from pipelines.kafka.topics import ensure_topic
from pipelines.ledger import Ledger, Match, Position
from pipelines.replay.poison_retry import Outcome, again

pytestmark = pytest.mark.stack

MATCH = Match("post_visit.follow_up", "1", "post_visit")
BODY = b'{"resourceType":"Encounter"}'


class RawName(str):
    """A header's name that reaches the broker as bytes which are no UTF-8."""

    def encode(self, *_: Any) -> bytes:
        return b"na\xff\xfeme"


class Writer:
    """Writes batches into partition 0, each `write` one batch."""

    def __init__(self, config: Config, **given: Any) -> None:
        ensure_topic(config)
        self.topic = config.kafka.topic
        self.producer = KafkaProducer(bootstrap_servers=config.kafka.bootstrap, acks="all", linger_ms=300, **given)

    def write(self, *records: tuple[str, list[tuple[str, bytes]]], body: bytes = BODY) -> None:
        for id_, headers in records:
            event = ClinicalEvent("hospital", "R4", "Encounter", id_, "1", None, "Patient/1", body)
            envelope = pack(event, salt="salt", received_at=datetime.now(UTC))
            given = [*envelope.headers, *headers] if id_ else headers
            self.producer.send(self.topic, value=envelope.value, key=envelope.key, headers=given, partition=0)
        self.producer.flush(timeout=20)


@pytest.fixture
def writer(config: Config) -> Iterator[Writer]:
    made = Writer(config)
    yield made
    made.producer.close()


@contextmanager
def reading(config: Config, ledger: Ledger) -> Iterator[None]:
    """An intake in a thread of its own."""
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


def poison(engine: Engine) -> list[tuple[int, str, int | None]]:
    """(offset, reason, offset of the copy) of each poison record."""
    with engine.connect() as connection:
        query = text('SELECT "offset", reason, copy_offset FROM poison ORDER BY "offset"')
        return [(row.offset, row.reason, row.copy_offset) for row in connection.execute(query)]


def test_a_header_name_that_is_no_utf8_stops_neither_its_batch_nor_its_partition(
    config: Config, ledger: Ledger, ledger_engine: Engine, writer: Writer, until: Any
) -> None:
    writer.write(("before", []))
    writer.write(("beside", []), ("", [(RawName("x"), b"v")]), ("marked", [(RawName("x"), b"v")]), ("behind", []))
    writer.write(("after", []))
    with reading(config, ledger):
        until(lambda: ledger.account().read == 6)
    account = ledger.account()
    assert (account.events, account.poison, account.unaccounted) == (5, 1, 0)
    assert poison(ledger_engine) == [(2, "no_envelope", 0)]

    records = Records(config.kafka)
    copy = records.at(Position(config.kafka.dead_letters, 0, 0))
    behind = records.at(Position(config.kafka.topic, 0, 4))
    records.close()
    assert copy is not None and copy.value == BODY and copy.headers[0] == ("na??me", b"v")
    assert behind is not None and dict(behind.headers).get("ce_id") is not None


def test_the_bytes_of_an_event_behind_it_in_its_batch_are_had(config: Config, ledger: Ledger, writer, until) -> None:
    writer.write(("", [(RawName("x"), b"v")]), ("behind", []))
    with reading(config, ledger):
        until(lambda: ledger.account().events == 1)
    run = ledger.take_run(MATCH.scenario, 5)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    payloads = KafkaPayloads(config.kafka, patience=10)
    payloads.expect([item.event])
    assert payloads.get(item.event) == BODY
    payloads.close()


@pytest.mark.parametrize("codec", ["gzip", "lz4", "snappy", "zstd"])
def test_whatever_a_writer_compresses_with_is_read(config: Config, ledger: Ledger, until: Any, codec: str) -> None:
    writer = Writer(config, compression_type=codec)
    writer.write(("one", []), ("", [(RawName("x"), b"v" * 500)]), ("two", []))
    writer.producer.close()
    with reading(config, ledger):
        until(lambda: ledger.account().read == 3)
    assert (ledger.account().events, ledger.account().poison) == (2, 1)


@pytest.mark.long  # a minute: the consumer gives a batch up slowly
def test_a_batch_whose_checksum_is_wrong_is_passed_over_and_each_of_its_records_is_counted(
    config: Config, ledger: Ledger, ledger_engine: Engine, writer: Writer, tmp_path_factory, until
) -> None:
    mark = b'{"resourceType":"Encounter","x":"a-mark"}'
    writer.write(("before", []))
    writer.write(("c1", []), ("c2", []), ("c3", []), body=mark)
    writer.write(("after", []), ("after2", []))
    _write_over(tmp_path_factory, config, mark, b"X")
    with reading(config, ledger):
        until(lambda: ledger.account().read == 6)
        writer.write(("later", []))
        until(lambda: ledger.account().read == 7)
    account = ledger.account()
    assert (account.events, account.poison, account.missing, account.unaccounted) == (4, 3, 0, 0)
    assert poison(ledger_engine) == [(offset, "unreadable", None) for offset in (1, 2, 3)]

    _write_over(tmp_path_factory, config, mark, mark[-1:])
    records = Records(config.kafka)
    row = ledger.poison()[0]
    reader = Reader({"Encounter"}, lambda resource: (MATCH,))
    assert again(ledger, records, reader, row, by="wu", why="another replica leads now") is Outcome.RECORDED
    records.close()
    assert ledger.account().unaccounted == 0


def test_what_can_be_read_at_the_second_try_is_no_poison(config: Config, ledger, writer, until, monkeypatch) -> None:
    failures = iter(range(3))

    class Glitch(consumer.KafkaConsumer):  # type: ignore[misc, name-defined]
        def poll(self, *given: Any, **named: Any) -> Any:
            polled = super().poll(*given, **named)
            if polled and next(failures, None) is not None:
                raise CorruptRecordError("crc")
            return polled

    monkeypatch.setattr(consumer, "KafkaConsumer", Glitch)
    writer.write(("one", []), ("two", []))
    with reading(config, ledger):
        until(lambda: ledger.account().read == 2)
    assert (ledger.account().events, ledger.account().poison) == (2, 0)


def test_what_cannot_be_read_in_the_poll_that_assigns_its_partition_is_passed_over_too(
    config: Config, ledger: Ledger, writer, tmp_path_factory, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unhurried(consumer.KafkaConsumer):  # type: ignore[misc, name-defined]
        def poll(self, *given: Any, **named: Any) -> Any:
            return super().poll(*given, **{**named, "timeout_ms": 5_000})

    monkeypatch.setattr(consumer, "KafkaConsumer", Unhurried)
    mark = b'{"resourceType":"Encounter","x":"a-mark"}'
    writer.write(("before", []))
    writer.write(("c1", []), ("c2", []), body=mark)
    writer.write(("after", []))
    _write_over(tmp_path_factory, config, mark, b"X")
    with reading(config, ledger):
        until(lambda: ledger.account().read == 4)
    assert (ledger.account().events, ledger.account().poison, ledger.account().unaccounted) == (2, 2, 0)


def _write_over(tmp_path_factory: pytest.TempPathFactory, config: Config, mark: bytes, last: bytes) -> None:
    """Change the last byte of the last `mark`, where the broker keeps it: one byte of one batch."""
    [segment] = tmp_path_factory.getbasetemp().rglob(f"{config.kafka.topic}-0/00000000000000000000.log")
    at = segment.read_bytes().rindex(mark[:-1]) + len(mark) - 1
    with segment.open("r+b") as file:
        file.seek(at)
        file.write(last)
