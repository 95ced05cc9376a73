"""The recording FHIR server of the chaos suite tells the truth: what it says it holds is what was written, once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_adapters.drafts import build_transaction
from fhir_adapters.provenance import Author, Origin
from fhir_adapters.write_fence import Fenced, build_fence
from plugins.scenario import Draft

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def hospital(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    from hospital_fake import Hospital

    made = Hospital()
    yield made
    made.close()


def transaction(event_id: str) -> dict[str, Any]:
    flag = {"resourceType": "Flag", "status": "active", "subject": {"reference": "Patient/p1"}}
    task = {"resourceType": "Task", "focus": {"reference": "urn:careloom:draft:flag"}}
    return build_transaction(
        [Draft("flag", flag, ()), Draft("task", task, ())],
        identity=f"{event_id}:in_visit.note:1",
        author=Author("model", "m", "1"),
        origin=Origin("in_visit.note", "1", "p-1", "Encounter/e1/_history/1"),
        recorded=NOW,
    ).bundle


def statuses(answer: httpx.Response) -> list[str]:
    return [entry["response"]["status"][:3] for entry in answer.json()["entry"]]


def test_what_is_sent_twice_is_there_once_and_points_at_what_was_there(hospital: Any):
    first, second = (httpx.post(hospital.url, json=transaction("e" * 64)) for _ in range(2))
    assert statuses(first) == ["201", "201", "201", "201"]
    assert statuses(second) == ["200", "200", "200", "200"]
    drafts = hospital.drafts()
    assert [len(copies) for copies in drafts.values()] == [1, 1]
    flag, task = (drafts[f"{'e' * 64}:in_visit.note:1:{name}"][0] for name in ("flag", "task"))
    assert task["focus"]["reference"] == f"Flag/{flag['id']}"
    assert [(commit.event_id, commit.names) for commit in hospital.commits] == [("e" * 64, ("flag", "task"))]
    assert hospital.recognised == 1


def test_an_answer_that_is_lost_was_done_and_one_that_is_refused_was_not(hospital: Any):
    from hospital_fake import Refusal

    hospital.fault = lambda ask: Refusal(503)
    assert httpx.post(hospital.url, json=transaction("a" * 64)).status_code == 503
    assert hospital.drafts() == {}
    hospital.fault = lambda ask: Refusal(0, after=True)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.post(hospital.url, json=transaction("a" * 64))
    assert len(hospital.drafts()) == 2


def test_who_asks_before_its_retry_after_is_over_is_counted(hospital: Any):
    from hospital_fake import Refusal

    hospital.fault = lambda ask: Refusal(429, retry_after=60)
    assert httpx.post(hospital.url, json=transaction("b" * 64)).headers["retry-after"] == "60"
    hospital.fault = lambda ask: None
    assert hospital.asked_early == 0
    httpx.post(hospital.url, json=transaction("b" * 64))
    assert hospital.asked_early == 1


def test_a_fence_is_no_draft_and_what_it_fences_off_is_refused_whole(hospital: Any):
    event_id = "c" * 64
    fence = build_fence(Fenced(f"{event_id}:in_visit.note:1", "model", "Flag", "flag"), overtaken_by="x", recorded=NOW)
    assert statuses(httpx.post(hospital.url, json=fence)) == ["201", "201", "201"]
    before = dict(hospital.resources)
    assert httpx.post(hospital.url, json=transaction(event_id)).status_code == 412
    assert hospital.resources == before
    assert (hospital.drafts(), hospital.commits, hospital.fences, hospital.fenced_off) == ({}, [], 1, 1)
