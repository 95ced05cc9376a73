"""Examinations are called for by published rules, and never when they are there already."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from plugins.examinations import EXAMS, RULES, called_for, open_for
from plugins.in_visit.exam_recommendation import ExamId
from plugins.scenario import Case

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)


def visit(reason: str) -> dict[str, Any]:
    return {"resourceType": "Encounter", "id": "e", "status": "in-progress", "reasonCode": [{"text": reason}]}


def result(code: str, age: timedelta, **more: Any) -> dict[str, Any]:
    at = (NOW - age).isoformat()
    return {
        "resourceType": "Observation",
        "id": "o",
        "code": {"coding": [{"code": code}]},
        "effectiveDateTime": at,
    } | more


def problem(text: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Condition", "id": "c", "code": {"text": text}} | more


def called(reason: str, **record: list[dict[str, Any]]) -> list[str]:
    return [each.exam.id for each in called_for(Case(visit(reason), None, record, "en", NOW))]


@pytest.mark.parametrize(
    ("reason", "exams"),
    [
        ("胸痛", ["ecg_12_lead", "troponin_hs"]), ("chest pain", ["ecg_12_lead", "troponin_hs"]),
        ("suspected stroke", ["ct_head_plain", "glucose"]), ("脓毒症?", ["lactate", "blood_culture"]),
        ("community-acquired pneumonia", ["chest_x_ray"]), ("缺铁性贫血", ["ferritin"]), ("甲减复查", ["tsh"]),
        ("no chest pain", []), ("否认胸痛", []), ("prediabetes", []), ("diabetes insipidus", []),
        ("pulmonary hypertension", []), ("cough", []), ("", []),
    ],
)  # fmt: skip
def test_a_reason_calls_for_what_its_guideline_names(reason: str, exams: list[str]) -> None:
    assert called(reason) == exams


@pytest.mark.parametrize(("days", "due"), [(182, False), (184, True)])
def test_a_rules_own_interval_counts(days: int, due: bool) -> None:
    record = [result("4548-4", timedelta(days=days))]
    assert ("hba1c" in called("x", problems=[problem("Type 2 diabetes")], results=record)) is due


def test_an_acute_problem_calls_for_examinations_while_it_is_new() -> None:
    new, old = ((NOW - timedelta(days=d)).isoformat() for d in (1, 30))
    assert called("x", problems=[problem("Sepsis", onsetDateTime=new)]) == ["lactate", "blood_culture"]
    assert called("x", problems=[problem("Sepsis", onsetDateTime=old)]) == []
    assert called("x", problems=[problem("Sepsis")]) == []


def test_an_icd_10_code_counts_as_the_name() -> None:
    coded = {"resourceType": "Condition", "id": "c", "code": {"coding": [{"code": "D50.9"}]}}
    assert called("x", problems=[coded]) == ["ferritin"]


@pytest.mark.parametrize(
    ("record", "open_"),
    [
        ({}, True),
        ({"results": [result("3016-3", timedelta(days=364))]}, False),
        ({"results": [result("3016-3", timedelta(days=366))]}, True),
        ({"results": [result("11579-0", timedelta(days=1))]}, False),
        ({"results": [result("3016-3", timedelta(days=1), status="cancelled")]}, True),
        ({"results": [result("718-7", timedelta(days=1))]}, True),
        ({"reports": [result("3016-3", timedelta(days=1)) | {"resourceType": "DiagnosticReport"}]}, False),
        ({"orders": [{"resourceType": "ServiceRequest", "id": "s", "code": {"coding": [{"code": "3016-3"}]}}]}, False),
    ],
)
def test_what_is_there_or_ordered_is_not_open(record: dict[str, list[dict[str, Any]]], open_: bool) -> None:
    assert open_for(Case(visit("x"), None, record, "en", NOW), EXAMS["tsh"]) is open_


def test_no_x_ray_is_open_in_pregnancy() -> None:
    case = Case(visit("x"), None, {"problems": [problem("Pregnancy")]}, "en", NOW)
    assert [exam.id for exam in EXAMS.values() if not open_for(case, exam)] == ["chest_x_ray", "ct_head_plain"]


def test_the_model_may_choose_from_exactly_this_set() -> None:
    assert get_args(ExamId) == tuple(EXAMS)


def test_every_rule_has_a_source_and_calls_for_known_examinations() -> None:
    assert len({rule.code for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.citation and rule.text.zh and rule.text.en
        assert set(rule.exams) <= set(EXAMS)
    for exam in EXAMS.values():
        assert exam.loinc[0] in exam.also
        assert exam.name.zh and exam.name.en
