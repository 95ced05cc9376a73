"""Two dispatchers on one topic and one ledger share the work, and it stays exact whatever becomes of one of them."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from sqlalchemy import Engine, text

from pipelines.config import Config
from pipelines.dispatcher.backoff import Backoff
from pipelines.dispatcher.intake import Intake
from pipelines.dispatcher.matching import Reader
from pipelines.dispatcher.pressure import Pressure
from pipelines.dispatcher.session import Session
from pipelines.kafka.topics import ensure_topic
from pipelines.ledger import Incoming, Ledger, Match, Recorded, State
from pipelines.stack.settings import toml

pytestmark = pytest.mark.stack

NOTE = "post_visit.follow_up"


@pytest.fixture
def start(config: Config, tmp_path: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a dispatcher of that name, as on a host of its own; all are ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start_(name: str) -> subprocess.Popen[str]:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        sections = config.model_dump(mode="json", exclude_defaults=True)
        sections["state_dir"] = str(tmp_path)
        sections["patient_salt"] = "salt"
        sections["ledger"]["url"] = config.ledger.url.get_secret_value()
        sections["airflow"]["password"] = config.airflow.password.get_secret_value()
        sections["sources"][0]["token"] = "t"
        sections["dispatcher"]["metrics_port"] = port
        file = tmp_path / f"{name}.toml"
        file.write_text(toml(sections))
        with (tmp_path / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.dispatcher"],
                env={**os.environ, "CARELOOM_CONFIG": str(file)},
                stderr=log,
                text=True,
            )
        started.append(process)
        return process

    yield start_
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


@pytest.fixture
def tasks(fake_airflow: Any, ledger: Ledger) -> Iterator[Callable[[], int]]:
    """Does what Airflow's tasks would, all the time; tells how many drafts were written."""
    over, written = threading.Event(), [0]

    def work() -> None:
        while not over.wait(0.05):
            written[0] += fake_airflow.work(ledger)

    worker = threading.Thread(target=work)
    worker.start()
    yield lambda: written[0]
    over.set()
    worker.join()


@pytest.mark.parametrize("fate", ["killed", "stopped and continued"])
def test_they_share_the_work_and_one_goes_on_when_the_other_is_gone(
    start: Callable[[str], Any],
    tasks: Callable[[], int],
    ledger: Ledger,
    ledger_engine: Engine,
    fake_airflow: Any,
    send: Any,
    until: Any,
    fate: str,
):
    one, other = start("one"), start("other")
    send(60)
    until(lambda: ledger.account().events == 60, 90)
    send(60, first=60)
    if fate == "killed":
        one.kill()
        one.wait()
    else:
        one.send_signal(signal.SIGSTOP)
    send(60, first=120)
    until(lambda: ledger.account().work.get(State.WRITTEN, 0) == 180, 120)  # what was the one's is the other's now
    if fate != "killed":
        one.send_signal(signal.SIGCONT)
        send(60, first=180)
        until(lambda: ledger.account().work.get(State.WRITTEN, 0) == 240, 120)
    until(lambda: not ledger.open_runs())
    assert other.poll() is None
    total = 180 if fate == "killed" else 240
    account = ledger.account()
    assert (account.read, account.events, account.matches) == (total, total, total)
    assert (account.duplicates, account.missing, account.unaccounted) == (0, 0, 0)
    assert tasks() == total
    with ledger_engine.begin() as connection:
        decided = set(connection.execute(text("SELECT run_id FROM runs")).scalars())
    assert {run_id for _, run_id in fake_airflow.runs} == decided


class Stuck(Ledger):
    """A ledger on whose doorstep one batch waits until it is let go: a dispatcher that is paused in the middle."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.holding = threading.Event()
        self.let_go = threading.Event()
        self.batches = 0

    def record(self, batch: Sequence[Incoming], epochs: Mapping[tuple[str, int], int] | None = None) -> Recorded:
        self.batches += 1
        if self.batches == 2:
            self.holding.set()
            assert self.let_go.wait(120)
        return super().record(batch, epochs)


def test_one_that_is_paused_with_a_batch_while_the_broker_loses_its_data_makes_nothing_be_passed_over(
    config: Config, ledger: Ledger, ledger_engine: Engine, send: Any, until: Any
):
    reader = Reader({"Encounter"}, lambda resource: (Match(NOTE, "1", "post_visit"),))
    config = config.model_copy(update={"kafka": config.kafka.model_copy(update={"partitions": 1})})
    # its group goes on without the paused one only after minutes; a group of its own stands for that time
    elsewhere = config.model_copy(update={"kafka": config.kafka.model_copy(update={"group": "another"})})
    stuck = Stuck(ledger_engine)
    stops = [threading.Event(), threading.Event()]

    def dispatcher(its: Config, its_ledger: Ledger, stop: threading.Event) -> threading.Thread:
        intake = Intake(its, its_ledger, reader, Pressure(10_000), lambda: None, Backoff(0.01, 0.1))
        thread = threading.Thread(target=intake.run, args=(stop,))
        thread.start()
        return thread

    _make_anew(config)
    zombie = dispatcher(config, stuck, stops[0])
    living: threading.Thread | None = None
    try:
        send(40)
        until(lambda: ledger.account().events == 40)
        send(40, first=40)
        assert stuck.holding.wait(60)  # it has read offsets 40 and up, and the ledger has not
        _make_anew(config)
        send(60, first=1000)  # less than it has read: what it holds would pass over these
        living = dispatcher(elsewhere, ledger, stops[1])
        until(lambda: ledger.standing(config.kafka.topic, 0).epoch == 1, 90)
        stuck.let_go.set()
        until(lambda: ledger.account().events >= 100, 90)
        time.sleep(0.5)
    finally:
        stuck.let_go.set()
        for stop in stops:
            stop.set()
        zombie.join()
        if living is not None:
            living.join()
    with ledger_engine.begin() as connection:
        ids = set(connection.execute(text("SELECT resource_id FROM events")).scalars())
    account = ledger.account()
    assert (account.missing, account.unaccounted) == (0, 0)
    # the 40 that only the lost broker had are gone with it; the sender sends again what it was not answered for
    assert ids == {f"e{n}" for n in range(40)} | {f"e{n}" for n in range(1000, 1060)}


def test_one_that_stood_still_while_it_asked_where_to_read_on_takes_no_data_for_lost(
    config: Config, ledger: Ledger, send: Any, until: Any, monkeypatch: pytest.MonkeyPatch
):
    reader = Reader({"Encounter"}, lambda resource: (Match(NOTE, "1", "post_visit"),))
    _recorded(config, ledger, reader, send, 40)
    session = Session(config, ledger)
    ends = session._consumer.end_offsets

    def and_stand_still(*asked: Any, **how: Any) -> Any:
        """The broker has answered; before anything comes of it, another dispatcher takes what came meanwhile."""
        answer = ends(*asked, **how)
        if ledger.account().events == 40:
            _recorded(config, ledger, reader, send, 80)
        return answer

    def placed() -> bool:
        session.place()
        session.poll()
        return session.placed

    monkeypatch.setattr(session._consumer, "end_offsets", and_stand_still)
    try:
        session.subscribe()
        until(placed)
    finally:
        session.close()
    standings = [ledger.standing(config.kafka.topic, number) for number in range(3)]
    assert (sum(s.next_offset or 0 for s in standings), {s.epoch for s in standings}) == (80, {0})


def _recorded(config: Config, ledger: Ledger, reader: Reader, send: Any, total: int) -> None:
    """Send events until there are so many in the topic, and write all that it holds into the ledger."""
    send(40, first=total - 40)
    consumer = KafkaConsumer(bootstrap_servers=config.kafka.bootstrap, auto_offset_reset="earliest")
    topic = config.kafka.topic
    consumer.assign([TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)])
    records: list[Any] = []
    while len(records) < total:
        records += itertools.chain(*consumer.poll(timeout_ms=500).values())
    consumer.close()
    ledger.record([reader.read(record) for record in records], {})


def _make_anew(config: Config) -> None:
    admin = KafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    admin.delete_topics([config.kafka.topic])
    while config.kafka.topic in admin.list_topics():
        time.sleep(0.05)
    admin.close()
    ensure_topic(config)
