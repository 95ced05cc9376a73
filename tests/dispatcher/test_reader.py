"""A Kafka record into what the ledger takes."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.decision import Verdict
from fhir_adapters.event import ClinicalEvent
from pipelines.dispatcher.matching import Reader
from pipelines.kafka.envelope import pack
from pipelines.ledger import Decision, Incoming, Match

MATCH = Match("in_visit.note", "1", "in_visit")
CANARY = "王小明"


def record(body: bytes = b'{"resourceType":"Encounter"}', **changed: Any) -> Any:
    event = ClinicalEvent("hospital", "R4", changed.pop("kind", "Encounter"), "1", "1", None, "Patient/1", body,
                          changed.pop("change", "written"))  # fmt: skip
    envelope = pack(event, salt="s", received_at=datetime.now(UTC))
    given_ = {"topic": "t", "partition": 0, "offset": 7, "timestamp": 1_767_225_600_000,
              "key": envelope.key, "value": envelope.value, "headers": envelope.headers}  # fmt: skip
    return SimpleNamespace(**{**given_, **changed})


def reader(matches: tuple[Match, ...] = (MATCH,)) -> Reader:
    return Reader({"Encounter"}, lambda resource: matches)


def test_an_event_comes_with_the_scenarios_that_it_starts():
    incoming = reader().read(record())
    assert incoming.event is not None and incoming.event.resource_type == "Encounter"
    assert incoming.matches == (MATCH,)
    assert incoming.position.offset == 7


@pytest.mark.parametrize("unwanted", [{"kind": "Observation"}, {"change": "deleted", "body": b""}])
def test_what_starts_nothing_is_an_event_all_the_same(unwanted: dict[str, Any]):
    def never(resource: object) -> tuple[Match, ...]:
        raise AssertionError("opened for nothing")

    incoming = Reader({"Encounter"}, never).read(record(**unwanted))
    assert incoming.event is not None
    assert incoming.matches == ()


@pytest.mark.parametrize(
    "time", ["9999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "1899-12-31T00:00:00Z"]
)
def test_a_time_that_no_system_is_of_orders_nothing(time: str):
    given_ = record()
    headers = [*((name, old) for name, old in given_.headers if name != "ce_time"), ("ce_time", time.encode())]
    event = reader().read(record(headers=headers)).event
    assert event is not None and event.last_updated is None


TASK = {
    "resourceType": "Task",
    "meta": {
        "security": [{"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "AIAST"}],
        "tag": [{"system": "urn:careloom:draft", "code": "e:in_visit.note:1:approve"}],
    },
    "status": "completed",
    "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "approve"}]},
    "owner": {"reference": "Practitioner/wang"},
}


def read_task(**changed: Any) -> Incoming:
    body = orjson.dumps({**TASK, **changed})
    return Reader({"Task"}, lambda resource: (MATCH,)).read(record(body, kind="Task"))


def test_a_task_that_a_person_has_decided_on_is_a_decision_and_starts_nothing():
    incoming = read_task(lastModified="2026-11-22T12:00:00Z")
    assert incoming.event is not None
    assert incoming.matches == ()
    at = datetime(2026, 11, 22, 12, tzinfo=UTC)
    assert incoming.decision == Decision("e:in_visit.note:1", Verdict.ACCEPTED, "Practitioner/wang", at)


def test_a_decision_that_does_not_say_when_was_made_when_the_server_or_the_gateway_had_it():
    incoming = read_task()
    assert incoming.event is not None and incoming.decision is not None
    assert incoming.decision.decided_at == incoming.event.received_at


def test_a_task_that_asks_for_approval_starts_nothing_before_it_is_decided_on_either():
    incoming = read_task(status="in-progress")
    assert incoming.event is not None
    assert (incoming.matches, incoming.decision) == ((), None)


def test_a_task_of_the_hospital_s_own_starts_what_it_starts_and_decides_nothing():
    incoming = read_task(meta={}, description='please "approve" the leave')
    assert (incoming.matches, incoming.decision) == ((MATCH,), None)


def test_a_decision_is_heard_where_no_scenario_waits_for_tasks_and_of_no_other_task_the_body_is_opened():
    incoming = reader().read(record(orjson.dumps(TASK), kind="Task"))
    assert incoming.decision is not None
    assert reader().read(record(b"{not opened", kind="Task")).event is not None
    deleted = reader().read(record(b"", kind="Task", change="deleted"))
    assert deleted.event is not None and deleted.decision is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"headers": []},
        {"headers": [("ce_specversion", None)]},
        {"headers": [("ce_specversion", b"\xff")]},
        {"key": None},
        {"key": b"k" * 600},
        {"key": b"a\0b"},
        {"value": None},
        {"value": b""},
        {"value": b"[]"},
        {"value": f'{{"name": "{CANARY}'.encode()},
        {"value": b"[" * 100_000},
        {"value": b"\xff\xfe"},
    ],
)
def test_poison_is_passed_with_its_position_and_nothing_of_its_body(wrong: dict[str, Any], caplog):
    with caplog.at_level(logging.INFO):
        incoming = reader().read(record(**wrong))
    assert incoming.event is None
    assert "t[0]@7" in caplog.text
    assert CANARY not in caplog.text


@pytest.mark.parametrize("header", ["ce_id", "ce_resourceid", "ce_versionid"])
@pytest.mark.parametrize("value", [b"x" * 513, b"a\0b"])
def test_a_header_that_the_ledger_cannot_keep_is_poison(header: str, value: bytes):
    headers = [(name, value if name == header else old) for name, old in record().headers]
    assert reader().read(record(headers=headers)).event is None


@given(
    key=st.none() | st.binary(max_size=40),
    value=st.none() | st.binary(max_size=200),
    headers=st.lists(st.tuples(st.sampled_from([n for n, _ in record().headers]), st.none() | st.binary(max_size=60))),
)
def test_nothing_that_a_record_may_hold_is_raised(key: bytes | None, value: bytes | None, headers: list[Any]):
    mixed = [*record().headers, *headers]
    reader().read(record(key=key, value=value, headers=mixed))
