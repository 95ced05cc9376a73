"""A note is held against the record: what contradicts is found, what merely differs is not."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from plugins.note_checks import issues
from plugins.note_text import sentences
from plugins.scenario import Case
from plugins.sides import mentions

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
PATIENT = {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1960-05-01"}


def note(text: str, kind: str = "text/plain", title: str = "Note") -> dict[str, Any]:
    data = base64.b64encode(text.encode()).decode()
    return {
        "resourceType": "DocumentReference",
        "id": "d",
        "type": {"text": title},
        "content": [{"attachment": {"contentType": kind, "data": data}}],
        "context": {"encounter": [{"reference": "Encounter/e"}]},
    }


def found(text: str, title: str = "Note", **record: list[dict[str, Any]]) -> list[str]:
    case = Case(note(text, title=title), PATIENT, record, "zh", NOW)
    return [each.finding.code for each in issues(case)]


def named(kind: str, text: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": kind, "id": "x", "code": {"text": text}} | more


def prescribed(text: str, dose: str = "") -> dict[str, Any]:
    return {
        "resourceType": "MedicationRequest",
        "id": "m",
        "medicationCodeableConcept": {"text": text},
        "dosageInstruction": [{"text": dose}] if dose else [],
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("患者男性,66岁", ["note-sex"]), ("性别:男", ["note-sex"]), ("患者,男,66岁", ["note-sex"]),
        ("66-year-old male with cough", ["note-sex"]), ("Sex: male", ["note-sex"]), ("a 66 yo gentleman", ["note-sex"]),
        ("患者女性,66岁", []), ("66-year-old woman", []), ("her husband is a retired man", []), ("其子,男,30岁", []),
        ("患者,女,50岁", ["note-age"]), ("年龄:46岁", ["note-age"]), ("Age: 46", ["note-age"]),
        ("The patient is a 36-year-old woman", ["note-age"]), ("患者女性,67岁", []), ("患者 20 年前手术", []),
    ],
)  # fmt: skip
def test_sex_and_age_of_another_person_are_found(text: str, expected: list[str]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    ("text", "record", "expected"),
    [
        ("右膝疼痛", "左膝骨关节炎", ["note-side"]),
        ("Fracture of the right wrist", "Fracture of left wrist", ["note-side"]),
        ("右侧肾结石", "Left kidney stone", ["note-side"]),
        ("左膝疼痛", "左膝骨关节炎", []),
        ("双膝疼痛", "左膝骨关节炎", []),
        ("右膝疼痛,左膝术后", "左膝骨关节炎", []),
        ("右肩疼痛", "左膝骨关节炎", []),
        ("膝痛", "左膝骨关节炎", []),
        ("右手写字,手术顺利", "左膝骨关节炎", []),
    ],
)
def test_the_other_side_of_the_same_part_is_found(text: str, record: str, expected: list[str]) -> None:
    assert found(text, problems=[named("Condition", record)]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("左膝", {("knee", "left")}), ("右侧腹股沟疝", {("groin", "right")}), ("双肺呼吸音清", {("lung", "both")}),
        ("bilateral knee pain", {("knee", "both")}), ("left upper arm", {("arm", "left")}),
        ("knee, right", {("knee", "right")}),
        ("左氧氟沙星", set()), ("手术3小时左右", set()), ("right away", set()), ("", set()),
    ],
)  # fmt: skip
def test_sides_are_read_of_named_parts_only(text: str, expected: set[tuple[str, str]]) -> None:
    assert mentions(text) == expected


@pytest.mark.parametrize(
    ("text", "category", "expected"),
    [
        ("否认药物过敏史", ["medication"], ["note-allergy-denied"]), ("否认药物过敏史", ["food"], []),
        ("No known allergies.", ["food"], ["note-allergy-denied"]), ("无过敏", None, ["note-allergy-denied"]),
        ("青霉素过敏", ["medication"], []),
    ],
)  # fmt: skip
def test_a_denied_allergy_is_found(text: str, category: list[str] | None, expected: list[str]) -> None:
    more = {"category": category} if category else {}
    assert found(text, allergies=[named("AllergyIntolerance", "青霉素", **more)]) == expected


@pytest.mark.parametrize("text", ["对青霉素过敏", "有磺胺过敏史", "allergic to penicillin"])
def test_a_claimed_allergy_is_found_where_the_record_says_that_there_is_none(text: str) -> None:
    none = named("AllergyIntolerance", "无已知过敏")
    assert found(text, allergies=[none]) == ["note-allergy-claimed"]
    assert found(text) == []
    assert found("否认过敏史", allergies=[none]) == []


@pytest.mark.parametrize(
    ("text", "drug", "dose", "expected"),
    [
        ("metoprolol 250 mg daily", "Metoprolol 25 MG", "", ["note-dose"]),
        ("metoprolol 50 mg daily", "Metoprolol 25 MG", "", []),
        ("metoprolol 12.5 mg", "Metoprolol 25 MG", "", []),
        ("二甲双胍 0.5g", "盐酸二甲双胍片 500mg", "", []),
        ("二甲双胍 5g", "盐酸二甲双胍片 500mg", "", ["note-dose"]),
        ("digoxin 0.25 mg", "Digoxin 125 MCG Oral Tablet", "", []),
        ("warfarin 5 mg", "Warfarin", "3 mg daily", ["note-dose"]),
        ("warfarin 5 mg", "Warfarin", "", []),
        ("warfarin, aspirin 100 mg", "Warfarin 3 MG", "", []),
        ("on metoprolol", "Metoprolol 25 MG", "", []),
    ],
)
def test_a_dose_is_held_against_the_prescription(text: str, drug: str, dose: str, expected: list[str]) -> None:
    assert found(text, medications=[prescribed(drug, dose)]) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("入院日期:2026-11-20", ["note-admission-day"]), ("入院时间:2026年11月21日", []),
        ("Admitted on 2026/11/20", ["note-admission-day"]), ("出院日期:2026.11.30", ["note-discharge-day"]),
        ("入院日期:2026-13-45", []),
    ],
)  # fmt: skip
def test_days_are_held_against_the_notes_own_encounter(text: str, expected: list[str]) -> None:
    period = {"start": "2026-11-21T20:00:00+08:00", "end": "2026-11-25T10:00:00+08:00"}
    encounter = {"resourceType": "Encounter", "id": "e", "period": period}
    assert found(text, encounters=[encounter]) == expected
    assert found(text, encounters=[encounter | {"id": "other"}]) == []


def test_mandatory_parts_are_asked_of_their_kind_of_note_only() -> None:
    assert found("主诉:咳嗽", title="入院记录") == ["note-part-missing"]
    assert found("主诉:咳嗽", title="病程记录") == []


def test_markup_is_read_and_what_is_no_text_is_not() -> None:
    assert sentences(note("<html><p>Right&nbsp;knee.</p><ul><li>Pain</li></ul></html>", "text/html")) == [
        "Right knee.",
        "Pain",
    ]
    assert sentences(note("%PDF", "application/pdf")) == []
    broken = note("")
    broken["content"][0]["attachment"]["data"] = "a"
    assert sentences(broken) == []


def test_every_issue_quotes_the_note_and_the_other_place() -> None:
    case = Case(note("右膝疼痛。"), PATIENT, {"problems": [named("Condition", "左膝骨关节炎")]}, "zh", NOW)
    (only,) = issues(case)
    assert [place.text for place in only.places] == ["“右膝疼痛。”", "左膝骨关节炎"]
    assert only.finding.sources == ("DocumentReference/d", "Condition/x")
