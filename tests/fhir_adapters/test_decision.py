"""What a Task says of a person's decision, by docs/review.md; nothing that a Task may hold breaks it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.approval import TASK_CODE
from fhir_adapters.decision import Said, Verdict, decision_of, is_ours
from fhir_adapters.drafts import AI_LABEL, DRAFT_SYSTEM
from monitoring.metrics import DecisionVerdict

IDENTITY = f"{'e' * 64}:in_visit.note:1"
KEY = f"{IDENTITY}:approve"
TASK: dict[str, Any] = {
    "resourceType": "Task",
    "meta": {"security": [AI_LABEL], "tag": [{"system": DRAFT_SYSTEM, "code": KEY}]},
    "identifier": [{"system": "urn:other", "value": "7"}, {"system": DRAFT_SYSTEM, "value": KEY}],
    "status": "completed",
    "code": {"coding": [{"system": TASK_CODE, "code": "approve"}]},
    "owner": {"reference": "Practitioner/wang", "display": "Dr Wang"},
    "lastModified": "2026-11-22T12:00:00+08:00",
}
EDITED = [{"type": {"text": "edited"}, "valueReference": {"reference": "Composition/9"}}]


def said(**changed: Any) -> Said | None:
    return decision_of({**TASK, **changed})


def test_a_completed_task_is_an_acceptance_with_who_and_when() -> None:
    at = datetime(2026, 11, 22, 4, tzinfo=UTC)
    assert said() == Said(IDENTITY, Verdict.ACCEPTED, "Practitioner/wang", at)


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({"output": EDITED}, Verdict.EDITED),
        ({"output": [{"type": {"text": "remark"}, "valueString": "fine"}]}, Verdict.ACCEPTED),
        ({"status": "rejected", "output": EDITED}, Verdict.REJECTED),
        ({"status": "failed"}, Verdict.WITHDRAWN),
        ({"status": "cancelled"}, Verdict.WITHDRAWN),
        ({"status": "entered-in-error"}, Verdict.WITHDRAWN),
    ],
)
def test_the_status_and_the_outputs_tell_the_verdict(changed: dict[str, Any], verdict: Verdict) -> None:
    found = said(**changed)
    assert found is not None and found.verdict is verdict


@pytest.mark.parametrize(
    "status", ["draft", "requested", "received", "accepted", "ready", "in-progress", "on-hold", None, 3, ["completed"]]
)
def test_other_statuses_are_no_decision_yet(status: object) -> None:
    assert said(status=status) is None


@pytest.mark.parametrize(
    ("reference", "who"),
    [
        ("PractitionerRole/7", "PractitionerRole/7"),
        ("https://ids.example/fhir/Practitioner/7/_history/2", "https://ids.example/fhir/Practitioner/7"),
        (f"https://{'x' * 300}/Practitioner/7", "Practitioner/7"),
        ("https://ids\0.example/Practitioner/7", "Practitioner/7"),
        ("Patient/p", None),
        ("Organization/o", None),
        ("#me", None),
        (None, None),
    ],
)
def test_the_person_is_a_practitioner_by_reference(reference: str | None, who: str | None) -> None:
    found = said(owner={"reference": reference})
    assert found is not None and found.who == who


def test_without_an_owner_nobody_is_named() -> None:
    found = said(owner=None)
    assert found is not None and found.who is None


@pytest.mark.parametrize("text", ["2026-11-22", "2026", "yesterday", "0001-01-01T00:00:00+14:00", 7, None])
def test_a_time_that_says_too_little_is_none(text: object) -> None:
    found = said(lastModified=text)
    assert found is not None and found.decided_at is None


def test_the_identity_stands_in_the_tag_or_in_the_identifier() -> None:
    for changed in ({"meta": {"security": [AI_LABEL]}}, {"meta": {}}, {"identifier": []}):
        found = said(**changed)
        assert found is not None and found.identity == IDENTITY
    nameless = said(meta={"security": [AI_LABEL]}, identifier=[{"system": DRAFT_SYSTEM, "value": "a b:approve"}])
    assert nameless is not None and nameless.identity is None


def test_a_task_of_the_hospital_s_own_is_none_of_ours() -> None:
    assert not is_ours({**TASK, "meta": {}, "identifier": []})
    assert not is_ours({**TASK, "code": {"coding": [{"system": "urn:careloom:task", "code": "approve"}]}})
    assert not is_ours({**TASK, "resourceType": "ServiceRequest"})
    assert said(code={"text": "approve"}) is None


def test_the_metric_s_verdicts_are_those_that_are_one() -> None:
    assert {verdict.value for verdict in DecisionVerdict} == {verdict.value for verdict in Verdict} - {"withdrawn"}


#: Of every kind that a reader may stumble over; all of Unicode costs a second before the first example.
SIGNS = "aZ09/-_:.#|\\\"' \t\n\x00é中\u200b\ufeff😀"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(SIGNS, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*TASK, "coding", "code"]), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*TASK, "output"]), JSON))
def test_nothing_that_a_task_may_hold_is_raised(changed: dict[str, Any]) -> None:
    decision_of({**TASK, **changed})
