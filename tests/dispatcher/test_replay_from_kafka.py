"""`careloom replay` and `careloom dead-letters` against a real broker, a real ledger and a real FHIR server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from kafka import KafkaAdminClient, TopicPartition
from sqlalchemy import Engine, text
from typer.testing import CliRunner

from fhir_adapters.fhir_client import FhirClient
from fhir_adapters.intake import take
from monitoring.metrics import Way
from pipelines.cli.app import build
from pipelines.config import Config
from pipelines.dispatcher.backoff import Backoff
from pipelines.dispatcher.intake import Intake
from pipelines.dispatcher.matching import reader_of
from pipelines.dispatcher.pressure import Pressure
from pipelines.errors import ErrorClass, StepFailed
from pipelines.gateway.submission import Submission
from pipelines.kafka.payloads import KafkaPayloads
from pipelines.kafka.producer import Producer
from pipelines.ledger import Inference, Ledger, State, Written
from pipelines.stack.settings import toml
from plugins.manager import load

pytestmark = pytest.mark.stack

SCENARIO = "post_visit.follow_up"
CANARY = "王小明"


@contextmanager
def reading(config: Config, ledger: Ledger) -> Iterator[None]:
    """The dispatcher's intake with the scenarios of the configuration."""
    stop = threading.Event()
    reader = reader_of(load(config.plugins.enabled, config.plugins.disabled_scenarios).scenarios.values())
    made = Intake(config, ledger, reader, Pressure(10_000), lambda: None, Backoff(0.01, 0.1))
    thread = threading.Thread(target=made.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def at_hospital(config: Config, sekmet_server: str) -> Config:
    """The configuration with a FHIR server behind its source."""
    source = config.sources[0].model_copy(update={"base_url": sekmet_server})
    return config.model_copy(update={"sources": (source,)})


@pytest.fixture
def careloom(at_hospital: Config, tmp_path: Path) -> Callable[..., Result]:
    """Calls the command as it is installed: `careloom("replay", "--since", "1h", ...)`."""
    config = at_hospital
    sections = config.model_dump(mode="json", exclude_defaults=True)
    sections["state_dir"] = str(tmp_path)
    sections["patient_salt"] = "salt"
    sections["ledger"]["url"] = config.ledger.url.get_secret_value()
    sections["airflow"]["password"] = config.airflow.password.get_secret_value()
    sections["sources"][0]["token"] = "t"
    file = tmp_path / "careloom.toml"
    file.write_text(toml(sections))

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(build(), [*arguments, "--config", str(file)])

    return call


def visits(config: Config, count: int) -> None:
    """Finished stays that the hospital has, and that the gateway has sent to Kafka."""

    async def go() -> None:
        source = config.sources[0]
        producer = Producer(config)
        submission = Submission(config, producer)
        async with FhirClient(str(source.base_url)) as client:
            for number in range(count):
                stay = {
                    "resourceType": "Encounter",
                    "id": f"{config.kafka.topic}-{number}",
                    "status": "finished",
                    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                    "subject": {"reference": f"Patient/p{number}", "display": CANARY},
                    "period": {"start": "2026-01-01", "end": "2026-01-05"},
                }
                saved = await client.update(stay)
                body = (await client.read("Encounter", stay["id"])).body
                taken = take("hospital", "R4", "PUT", "Encounter", stay["id"], "application/fhir+json", body)
                assert saved.created
                await submission.submit(source, taken.events, way=Way.POST, received_at=datetime.now(UTC))
        await producer.close()

    asyncio.run(go())


def finish(ledger: Ledger) -> int:
    done = 0
    while run := ledger.take_run(SCENARIO, 100):
        for item in ledger.claim(run.run_id, 60):
            ledger.written(ledger.inferred(item, Inference({"drafts": []}, {})), Written((), 0, 1))
            done += 1
    return done


def lose(config: Config) -> None:
    """Retention takes all that Kafka holds."""
    admin = KafkaAdminClient(bootstrap_servers=config.kafka.bootstrap)
    admin.delete_records({TopicPartition(config.kafka.topic, p): -1 for p in range(config.kafka.partitions)})
    admin.close()


def test_events_are_run_again_from_kafka_and_where_that_forgot_them_from_the_fhir_server(
    at_hospital: Config, ledger: Ledger, careloom, until
):
    visits(at_hospital, 5)
    with reading(at_hospital, ledger):
        until(lambda: ledger.account().events == 5)
        assert finish(ledger) == 5
        dry = careloom("replay", "--since", "1h", "--why", "a drill", "--dry-run", "--json")
        assert (dry.exit_code, json.loads(dry.stdout)["rows"], ledger.waiting()) == (0, 5, 0)

        done = careloom("replay", "--since", "1h", "--why", "a drill", "--json")
        assert (done.exit_code, json.loads(done.stdout)["rows"]) == (0, 5)
        assert finish(ledger) == 5

        lose(at_hospital)
        again = careloom("replay", "--scenario", SCENARIO, "--why", "a drill", "--json")
        assert again.exit_code == 0
        told = json.loads(again.stdout)
        assert (told["rows"], told["restored"], told["gone"]) == (5, 5, 0)
        until(lambda: ledger.account().duplicates == 5)
    account = ledger.account()
    assert (account.events, account.matches, account.missing, account.unaccounted) == (5, 15, 0, 0)
    run = ledger.take_run(SCENARIO, 100)
    assert run is not None
    payloads = KafkaPayloads(at_hospital.kafka)
    for item in ledger.claim(run.run_id, 60):
        assert json.loads(payloads.get(item.event))["id"] == item.event.resource_id
    payloads.close()
    assert CANARY not in dry.output + done.output + again.output


def test_what_nobody_has_any_more_is_named_and_ends_with_1(at_hospital: Config, ledger: Ledger, careloom, send, until):
    send(2)  # the hospital's server has none of them
    with reading(at_hospital, ledger):
        until(lambda: ledger.account().events == 2)
    finish(ledger)
    lose(at_hospital)
    told = careloom("replay", "--since", "1h", "--why", "a drill")
    assert told.exit_code == 1
    assert "2 events cannot be run again" in told.stdout
    assert "this version no more" in told.stdout
    assert ledger.account().unaccounted == 0


def test_a_dead_letter_is_shown_whole_but_the_patient_only_to_who_says_why(
    at_hospital: Config, ledger_engine: Engine, careloom, until
):
    ledger = Ledger(ledger_engine, max_attempts=1)
    visits(at_hospital, 1)
    with reading(at_hospital, ledger):
        until(lambda: ledger.account().events == 1)
    run = ledger.take_run(SCENARIO, 1)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    ledger.failed(item, StepFailed(ErrorClass.PAYLOAD_INVALID, "the event is no Encounter"))

    shown = careloom("dead-letters", "show", str(item.id))
    assert shown.exit_code == 0
    for part in (SCENARIO, "payload_invalid", "the event is no Encounter", run.run_id, item.event.event_id, "retry"):
        assert part in shown.stdout
    assert CANARY not in shown.output
    assert json.loads(careloom("dead-letters", "show", str(item.id), "--json").stdout)["step"] == "infer"

    assert careloom("dead-letters", "show", str(item.id), "--show-payload").exit_code == 2
    payload = careloom("dead-letters", "show", str(item.id), "--show-payload", "--why", "a drill", "--by", "wu")
    assert json.loads(payload.stdout)["subject"]["display"] == CANARY
    assert payload.stderr.startswith("PATIENT DATA follows")
    with ledger_engine.connect() as connection:
        rows = connection.execute(text("SELECT by, what, why FROM disclosures")).all()
    assert rows == [("wu", f"event of work {item.id}", "a drill")]

    replayed = careloom("replay", "--event", item.event.event_id, "--why", "a drill")
    assert replayed.exit_code == 1
    assert f"dead letter {item.id}" in replayed.stdout


def test_poison_is_shown_read_again_and_given_up(at_hospital: Config, ledger: Ledger, careloom, send, until):
    send(2, raw=f'"{CANARY}'.encode())
    with reading(at_hospital, ledger):
        until(lambda: ledger.account().poison == 2)
    first, second = (f"p{row.id}" for row in ledger.poison())
    listed = careloom("dead-letters", "list", "--class", "not_json", "--json")
    assert [json.loads(line)["id"] for line in listed.stdout.splitlines()] == [first, second]
    assert "not_json" in careloom("dead-letters", "list").stdout
    shown = careloom("dead-letters", "show", first)
    assert "not_json" in shown.stdout and CANARY not in shown.output
    payload = careloom("dead-letters", "show", first, "--show-payload", "--why", "a drill")
    assert payload.stdout == f'"{CANARY}'

    again = careloom("dead-letters", "retry", first, "--why", "a drill")
    assert (again.exit_code, again.stdout.splitlines()) == (
        1,
        [f"{first} is still poison", "poison: 1 still poison"],
    )
    unsure = careloom("dead-letters", "discard", "--all", "--why", "a drill")
    assert (unsure.exit_code, len(ledger.poison())) == (1, 2)
    assert "0 pieces of work, 2 records" in unsure.stderr
    assert careloom("dead-letters", "discard", first, "--why", "a drill").exit_code == 0
    assert careloom("dead-letters", "discard", "--all", "--why", "a drill", "--yes").exit_code == 0
    assert ledger.poison() == []
    assert ledger.account().work == {}
    assert ledger.account().unaccounted == 0


def test_many_dead_letters_are_decided_on_at_once_with_a_word(
    at_hospital: Config, ledger_engine: Engine, careloom, send, until
):
    ledger = Ledger(ledger_engine, max_attempts=1)
    send(4)
    with reading(at_hospital, ledger):
        until(lambda: ledger.account().events == 4)
    run = ledger.take_run(SCENARIO, 10)
    assert run is not None
    for item in ledger.claim(run.run_id, 60):
        ledger.failed(item, StepFailed(ErrorClass.PAYLOAD_INVALID, "no"))
    asked = careloom("dead-letters", "retry", "--scenario", SCENARIO, "--why", "mended")
    assert (asked.exit_code, ledger.account().work) == (1, {State.PARKED: 4})
    assert "4 pieces of work" in asked.stderr
    assert careloom("dead-letters", "retry", "--scenario", SCENARIO, "--why", "mended", "--yes").exit_code == 0
    assert ledger.account().work == {State.WAITING: 4}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("replay", "--why", "x"), "say which events"),
        (("replay", "--since", "yesterday", "--why", "x"), "is no time"),
        (("dead-letters", "show", "x3"), "is no dead letter"),
        (("dead-letters", "list", "--class", "bad"), "is no class"),
        (("dead-letters", "retry", "--why", "x"), "choose by numbers"),
        (("dead-letters", "retry", "3", "--all", "--why", "x"), "one of the three"),
        (("dead-letters", "retry", "--scenario", "a.b", "--class", "not_json", "--why", "x"), "belongs to no scenario"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_what_is_wrong(careloom, arguments: tuple[str, ...], says: str):
    told = careloom(*arguments)
    assert told.exit_code == 2
    assert says in " ".join(told.output.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("replay", "--scenario", "in_visit.nothing", "--why", "x"), SCENARIO),
        (("replay", "--event", "0" * 64, "--why", "x"), "the ledger knows no event"),
        (("replay", "--since", "1h", "--source", "elsewhere", "--why", "x"), "no source named"),
        (("dead-letters", "discard", "p99", "--why", "x"), "p99 is no poison"),
    ],
)
def test_what_is_not_there_is_named(careloom, arguments: tuple[str, ...], says: str):
    assert says in str(careloom(*arguments).exception)
