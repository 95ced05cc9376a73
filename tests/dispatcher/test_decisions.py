"""From the record of a Task that a person moved on to the ledger's decision; no word of the Task goes with it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine, text

from fhir_adapters.approval import TASK_CODE
from fhir_adapters.drafts import AI_LABEL, DRAFT_SYSTEM
from fhir_adapters.event import ClinicalEvent
from pipelines.dispatcher.matching import Reader
from pipelines.kafka.envelope import pack
from pipelines.ledger import Inference, Ledger, Match, Written
from tests.canary import CANARY

NOTE = Match("in_visit.note", "1", "in_visit")


def matched(resource: Any) -> tuple[Match, ...]:
    return (NOTE,)


READER = Reader({"Encounter", "Task"}, matched)


def record(offset: int, resource: dict[str, Any]) -> Any:
    body = orjson.dumps(resource)
    event = ClinicalEvent("ward", "R4", resource["resourceType"], "1", f"{offset}", None, "Patient/1", body)
    envelope = pack(event, salt="s", received_at=datetime.now(UTC))
    return SimpleNamespace(topic="t", partition=0, offset=offset, timestamp=1_767_225_600_000, key=envelope.key,
                           value=envelope.value, headers=envelope.headers)  # fmt: skip


def put_back(identity: str, **changed: Any) -> dict[str, Any]:
    """The Task as a person put it back, with a patient's name wherever there is room for a word."""
    key = f"{identity}:approve"
    return {
        "resourceType": "Task",
        "meta": {"security": [AI_LABEL], "tag": [{"system": DRAFT_SYSTEM, "code": key}]},
        "identifier": [{"system": DRAFT_SYSTEM, "value": key}],
        "status": "rejected",
        "statusReason": {"text": f"{CANARY} has never smoked"},
        "code": {"coding": [{"system": TASK_CODE, "code": "approve"}], "text": CANARY},
        "description": CANARY,
        "owner": {"reference": "Practitioner/wang", "display": CANARY},
        "note": [{"text": CANARY}],
        "output": [{"type": {"text": CANARY}, "valueString": CANARY}],
        **changed,
    }


@pytest.fixture
def identity(ledger_engine: Engine) -> str:
    """Of drafts that are written."""
    ledger = Ledger(ledger_engine)
    incoming = READER.read(record(0, {"resourceType": "Encounter"}))
    ledger.record([incoming])
    run = ledger.take_run(NOTE.scenario, 10)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    inferred = ledger.inferred(item, Inference({"drafts": []}, {}, model="m", model_version="1"))
    ledger.written(inferred, Written(("Composition/1",), 1, 0, "Task/1"))
    return item.identity


def test_what_a_person_decided_stands_in_the_ledger_and_nothing_else_of_the_task(
    ledger_engine: Engine, identity: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    Ledger(ledger_engine).record(
        [READER.read(record(1, put_back(identity))), READER.read(record(2, put_back(identity, owner={})))]
    )
    with ledger_engine.connect() as connection:
        [row] = connection.execute(text("SELECT * FROM decisions"))
        assert (row.verdict, row.who) == ("rejected", "Practitioner/wang")
        assert connection.execute(text("SELECT count(*) FROM work")).scalar_one() == 1
        for table in ("decisions", "events", "work", "samples", "poison", "progress"):
            hits = text(f"SELECT count(*) FROM {table} t WHERE t::text LIKE :canary")
            assert connection.execute(hits, {"canary": f"%{CANARY}%"}).scalar_one() == 0, table
    assert CANARY not in caplog.text


@pytest.mark.parametrize("status", ["requested", "in-progress", "on-hold"])
def test_a_task_on_its_way_to_a_decision_is_an_event_and_no_more(
    ledger_engine: Engine, identity: str, status: str
) -> None:
    ledger = Ledger(ledger_engine)
    ledger.record([READER.read(record(1, put_back(identity, status=status)))])
    account = ledger.account()
    assert (account.events, account.matches, account.unaccounted) == (2, 1, 0)
    with ledger_engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM decisions")).scalar_one() == 0
        assert connection.execute(text("SELECT count(*) FROM samples")).scalar_one() == 0
