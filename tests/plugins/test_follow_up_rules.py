"""When to follow up is decided by rules, each with its source."""

from __future__ import annotations

from typing import Any

import pytest

from plugins import follow_up_rules
from plugins.follow_up_rules import RULES, steps


def encounter(kind: str) -> dict[str, Any]:
    return {"resourceType": "Encounter", "id": "e", "class": {"code": kind}}


def condition(text: str = "", code: str = "") -> dict[str, Any]:
    return {"resourceType": "Condition", "id": "c", "code": {"text": text, "coding": [{"code": code}]}}


def due(kind: str, *conditions: dict[str, Any]) -> dict[str, int]:
    return {step.rule.code: step.rule.days for step in steps(encounter(kind), conditions)}


@pytest.mark.parametrize(
    ("kind", "conditions", "expected"),
    [
        ("IMP", [], {"inpatient-contact": 2, "inpatient-visit": 14}),
        ("IMP", [condition("心力衰竭")], {"inpatient-contact": 2, "heart-failure-visit": 7, "inpatient-visit": 14}),
        ("IMP", [condition(code="I50.9")], {"inpatient-contact": 2, "heart-failure-visit": 7, "inpatient-visit": 14}),
        ("EMER", [], {"emergency-contact": 7}),
        ("EMER", [condition("Childhood asthma")], {"asthma-visit": 7, "emergency-contact": 7}),
        ("AMB", [], {}),
        ("AMB", [condition("Asthma")], {}),
        ("AMB", [condition("Essential hypertension")], {"hypertension-visit": 90}),
        ("AMB", [condition(code="E11.9")], {"diabetes-visit": 90}),
        (
            "IMP",
            [condition("Suicidal ideation")],
            {"suicide-risk-contact": 2, "inpatient-contact": 2, "inpatient-visit": 14},
        ),
        ("PRENC", [], {}),
    ],
)
def test_what_is_due_follows_from_the_kind_of_encounter_and_the_diagnoses(
    kind: str, conditions: list[dict[str, Any]], expected: dict[str, int]
) -> None:
    assert due(kind, *conditions) == expected


def test_steps_come_soonest_first() -> None:
    days = list(due("IMP", condition("heart failure"), condition("diabetes")).values())
    assert days == sorted(days)


def test_a_step_rests_on_the_diagnosis_and_the_encounter() -> None:
    step = next(s for s in steps(encounter("IMP"), [condition("heart failure")]) if s.rule.when)
    assert step.sources == ("Condition/c", "Encounter/e")


def test_findings_lead_back_to_their_steps() -> None:
    found = steps(encounter("IMP"), [condition("heart failure")])
    assert follow_up_rules.of([step.finding for step in found]) == found


def test_every_rule_has_a_source_and_both_languages_and_a_code_of_its_own() -> None:
    assert len({rule.code for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.citation
        assert rule.text.zh
        assert rule.text.en
        assert rule.days > 0
