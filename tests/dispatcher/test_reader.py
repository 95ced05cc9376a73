"""A Kafka record into what the ledger takes."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.event import ClinicalEvent
from pipelines.dispatcher.matching import Reader
from pipelines.envelope import pack
from pipelines.ledger import Match

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
