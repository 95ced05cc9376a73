"""Each kind of resource reads as a clinician would say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from plugins import record_lines
from plugins.record_lines import Reply, lines, real, replies


def coded(text: str) -> dict[str, str]:
    return {"text": text}


OBSERVATIONS = [
    ({"code": coded("Pulse"), "valueQuantity": {"value": 88, "unit": "/min"}}, "Pulse: 88 /min"),
    ({"code": coded("CRP"), "valueQuantity": {"value": 5, "comparator": "<"}}, "CRP: <5"),
    ({"code": coded("Smoking"), "valueCodeableConcept": coded("never")}, "Smoking: never"),
    ({"code": coded("CRP"), "dataAbsentReason": coded("unknown")}, ""),
    (
        {
            "code": coded("BP"),
            "component": [{"code": coded("sys"), "valueQuantity": {"value": 120}}],
            "interpretation": [coded("H")],
            "effectiveDateTime": "2026-01-02T03:04:05Z",
        },
        "BP: sys 120 (H, 2026-01-02)",
    ),
]
OTHERS = [
    (
        record_lines.medication,
        {"medicationCodeableConcept": coded("Aspirin"), "dosageInstruction": [{"text": "od"}]},
        "Aspirin, od",
    ),
    (record_lines.medication, {"medicationReference": {"display": "Aspirin"}}, "Aspirin"),
    (record_lines.medication, {}, ""),
    (record_lines.report, {"code": coded("CXR"), "conclusion": "clear"}, "CXR: clear"),
    (record_lines.report, {"code": coded("CXR")}, ""),
    (
        record_lines.procedure,
        {"code": coded("Stent"), "performedPeriod": {"start": "2020-01-01"}},
        "Stent (2020-01-01)",
    ),
    (
        record_lines.relative,
        {"relationship": coded("mother"), "condition": [{"code": coded("stroke")}]},
        "mother: stroke",
    ),
]


@pytest.mark.parametrize(("resource", "line"), OBSERVATIONS)
def test_an_observation_says_what_was_measured_and_is_silent_without_a_value(
    resource: dict[str, Any], line: str
) -> None:
    assert record_lines.observation(resource) == line


@pytest.mark.parametrize(("say", "resource", "line"), OTHERS)
def test_a_resource_reads_as_one_line(say: Callable[[Any], str], resource: dict[str, Any], line: str) -> None:
    assert say(resource) == line


def test_a_problem_and_an_allergy_speak_the_reader_s_language() -> None:
    problem = {"code": coded("哮喘"), "clinicalStatus": {"coding": [{"code": "active"}]}, "onsetDateTime": "2019"}
    assert record_lines.condition(problem, "zh") == "哮喘 (活动, 2019)"
    assert record_lines.condition(problem, "en") == "哮喘 (active, 2019)"
    nuts = {"code": coded("Nuts"), "criticality": "high", "reaction": [{"manifestation": [coded("rash")]}]}
    assert record_lines.allergy(nuts, "en") == "Nuts: rash (high risk)"


def test_what_the_record_withdraws_is_left_out() -> None:
    kept: dict[str, Any] = {"resourceType": "Condition", "id": "1"}
    refuted = kept | {"verificationStatus": {"coding": [{"code": "refuted"}]}}
    assert real([kept, refuted, kept | {"status": "entered-in-error"}, kept | {"status": "cancelled"}]) == [kept]


def answered(*answers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"item": [{"linkId": "1", "text": "Chest pain?", "answer": list(answers)} | more]}


@pytest.mark.parametrize(
    ("response", "reply", "asserts"),
    [
        (answered({"valueBoolean": True}), Reply("Chest pain?", "", True), "Chest pain?"),
        (answered({"valueBoolean": False}), Reply("Chest pain?", "", False), ""),
        (answered({"valueString": " Yes. "}), Reply("Chest pain?", "Yes.", True), "Chest pain?"),
        (answered({"valueString": "没有"}), Reply("Chest pain?", "没有", False), ""),
        (answered({"valueString": "since noon"}), Reply("Chest pain?", "since noon"), "since noon"),
        (answered({"valueCoding": {"display": "Cough"}}, {"valueInteger": 3}), Reply("Chest pain?", "Cough, 3"),
         "Cough, 3"),
    ],
)  # fmt: skip
def test_an_answer_claims_its_words_a_yes_its_question_and_a_no_nothing(
    response: dict[str, Any], reply: Reply, asserts: str
) -> None:
    assert replies(response) == [reply]
    assert reply.asserts == asserts


def test_nested_questions_are_read_and_unanswered_ones_are_not() -> None:
    nested = {"linkId": "2", "text": "Where?", "answer": [{"valueString": "left"}]}
    response = {"item": [{"linkId": "g", "item": [nested]}, {"linkId": "3", "text": "Why?"}, "wrong"]}
    assert [r.line("en") for r in replies(response)] == ["Where?: left"]
    assert [r.said for r in replies(answered({"valueBoolean": True, "item": [nested]}))] == ["", "left"]


def test_a_bottomless_questionnaire_ends() -> None:
    item: dict[str, Any] = {"linkId": "x", "answer": [{"valueString": "deep"}]}
    for _ in range(200):
        item = {"linkId": "x", "item": [item]}
    assert replies({"item": [item]}) == []


def test_equal_lines_are_said_once_and_the_rest_is_counted() -> None:
    resources = [{"resourceType": "Condition", "id": str(n), "code": coded(f"c{n // 2}")} for n in range(10)]
    shown = lines(resources, lambda r: record_lines.condition(r, "en"), 3, "en")
    assert [line.text for line in shown] == ["c0", "c1", "c2", "2 more in the record"]
    assert shown[0].sources == ("Condition/0", "Condition/1")
    assert shown[-1].sources == ()
