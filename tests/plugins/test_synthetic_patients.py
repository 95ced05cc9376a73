"""Every synthetic patient gets valid drafts of every scenario, even from a model that answers noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from plugins.fhir_text import DEVICE, codes, deceased, display, draft, listed, moment
from plugins.golden import Outcome, run
from plugins.in_visit.admission_note import AdmissionNote
from plugins.in_visit.exam_recommendation import ExamRecommendation
from plugins.in_visit.icu_watch import IcuWatch
from plugins.in_visit.order_safety import OrderSafety
from plugins.in_visit.record_qc import RecordQc
from plugins.manager import load
from plugins.matching import Matcher
from plugins.post_visit.adherence_risk import AdherenceRisk
from plugins.post_visit.discharge_summary import DischargeSummary
from plugins.post_visit.follow_up import FollowUp
from plugins.pre_visit.health_education import HealthEducation
from plugins.pre_visit.patient_qa import PatientQa
from plugins.pre_visit.triage import Triage
from plugins.pre_visit.visit_brief import VisitBrief
from plugins.prompting import chat
from plugins.scenario import Case, Locale, Passage, Scenario, reference
from plugins.testing import draft_problems
from plugins.vital_signs import CODES, taken

WHEN = ("effectiveDateTime", "authoredOn", "date")
#: Where nothing is wrong, or nothing is called for, these write nothing.
MAY_BE_SILENT = {
    "in_visit.exam_recommendation",
    "in_visit.icu_watch",
    "in_visit.order_safety",
    "in_visit.record_qc",
    "post_visit.adherence_risk",
}
LEAFLET = Passage("house#1", "Come 30 minutes early. 请提前 30 分钟报到。", "Visit", "urn:house", "2026", "own", "en")
MATCHER = Matcher(load().scenarios.values())


def case_of(scenario: Scenario[Any], record: Any, trigger: dict[str, Any], locale: Locale) -> Case:
    """The case that the runner would read for this trigger, one hour after it was measured, or the encounter ended."""
    encounter = reference(trigger) if trigger["resourceType"] == "Encounter" else None
    measured = taken(trigger) if trigger["resourceType"] == "Observation" else None
    now = measured or moment(latest(record)[0]["period"]["end"])
    assert now is not None
    now += timedelta(hours=1)
    found = {query.name: record.search(query, now, encounter) for query in scenario.record}
    passages = {query.name: (LEAFLET,) for query in scenario.knowledge}
    return Case(trigger, record.patient, found, locale, now, passages=passages)


def latest(record: Any) -> list[dict[str, Any]]:
    """Encounters, newest first; those with a reason before the others."""
    encounters = sorted(record.of("Encounter"), key=lambda e: str(e["period"].get("start")), reverse=True)
    return sorted(encounters, key=lambda e: not e.get("reasonCode"))


def intake(record: Any) -> dict[str, Any]:
    """A questionnaire in which the patient gives the reason of the latest encounter."""
    encounter = latest(record)[0]
    reason = next(filter(None, (display(r) for r in listed(encounter, "reasonCode"))), "check-up")
    item = [{"linkId": "1", "text": "What is the problem?", "answer": [{"valueString": reason}]}]
    return {
        "resourceType": "QuestionnaireResponse",
        "id": "intake",
        "status": "completed",
        "subject": {"reference": reference(record.patient)},
        "item": item,
    }


def appointment(record: Any) -> dict[str, Any]:
    """A booked visit for the reason of the latest encounter."""
    return {
        "resourceType": "Appointment",
        "id": "visit",
        "status": "booked",
        "reasonCode": latest(record)[0].get("reasonCode") or [{"text": "check-up"}],
        "participant": [{"actor": {"reference": reference(record.patient)}, "status": "accepted"}],
    }


def question(record: Any) -> dict[str, Any]:
    """A message in which the patient asks when to come."""
    own = {"reference": reference(record.patient)}
    said = [{"contentString": "When should I come to my appointment?"}]
    return {"resourceType": "Communication", "id": "asked", "status": "completed", "subject": own, "sender": own} | {
        "payload": said
    }


def dispense(order: dict[str, Any]) -> dict[str, Any]:
    """Thirty days' supply, handed over on the day of the order."""
    kept = {k: order[k] for k in ("subject", "medicationCodeableConcept", "medicationReference") if k in order}
    supply = {"value": 30, "system": "http://unitsofmeasure.org", "code": "d"}
    return kept | {
        "resourceType": "MedicationDispense",
        "id": "handed-over",
        "status": "completed",
        "whenHandedOver": order["authoredOn"],
        "daysSupply": supply,
    }


def is_vital_sign(resource: dict[str, Any]) -> bool:
    vital = any("vital-signs" in codes(category) for category in resource.get("category", ()))
    return vital and bool(codes(resource["code"]) & CODES.keys())


def newest(record: Any, kind: str, wanted: Callable[[dict[str, Any]], bool] = bool) -> list[dict[str, Any]]:
    """The newest resource of a type, as a list of one, or none."""
    found = sorted(filter(wanted, record.of(kind)), key=lambda r: next((str(r[d]) for d in WHEN if d in r), ""))
    return found[-1:]


def triggers(record: Any) -> Iterator[tuple[Scenario[Any], dict[str, Any]]]:
    encounter = latest(record)[0]
    yield Triage(), intake(record)
    yield PatientQa(), question(record)
    yield HealthEducation(), appointment(record)
    yield VisitBrief(), appointment(record)
    yield AdmissionNote(), encounter | {"status": "in-progress", "class": {"code": "IMP"}}
    yield ExamRecommendation(), encounter | {"status": "in-progress", "class": {"code": "AMB"}}
    for vital in newest(record, "Observation", is_vital_sign):
        yield IcuWatch(), vital
    for order in newest(record, "MedicationRequest"):
        yield OrderSafety(), order | {"status": "active"}
        yield AdherenceRisk(), dispense(order)
    for note in newest(record, "DocumentReference"):
        yield RecordQc(), note | {"status": "current"}
    yield DischargeSummary(), encounter | {"status": "finished", "class": {"code": "IMP"}}
    yield FollowUp(), encounter | {"reasonCode": encounter.get("reasonCode") or [{"text": "visit"}]}


@pytest.fixture(scope="module")
def outcomes(records: list[Any]) -> list[tuple[Scenario[Any], Case, Outcome]]:
    """What every scenario makes of every patient."""
    return list(made_of(records))


def made_of(records: list[Any]) -> Iterator[tuple[Scenario[Any], Case, Outcome]]:
    for n, record in enumerate(records):
        for scenario, trigger in triggers(record):
            assert scenario.id in [s.id for s in MATCHER.match(trigger)]
            case = case_of(scenario, record, trigger, "zh" if n % 2 else "en")
            yield scenario, case, run(scenario, case)


def test_every_scenario_writes_valid_drafts_for_every_patient(records: list[Any], outcomes: Any) -> None:
    assert len(records) >= 20
    for scenario, case, outcome in outcomes:
        held = [case.trigger, case.patient, *(r for found in case.resources.values() for r in found)]
        known = {reference(r) for r in held if r} | {DEVICE, LEAFLET.source} | {draft(d.name) for d in outcome.drafts}
        nothing_is_due = scenario.id == "post_visit.follow_up" and not outcome.findings
        assert outcome.drafts or deceased(case.patient) or scenario.id in MAY_BE_SILENT or nothing_is_due
        for each in outcome.drafts:
            assert list(draft_problems(each, known)) == []


def test_the_record_reaches_the_prompt_and_the_prompt_stays_small(records: list[Any]) -> None:
    for record in records:
        for scenario, trigger in triggers(record):
            talk = chat(
                scenario.prompt(case_of(scenario, record, trigger, "en")), case_of(scenario, record, trigger, "en")
            )
            assert len(talk.tags) >= 2
            assert len(talk.messages[1]["content"]) < 3200


def test_every_patient_has_an_encounter_that_is_followed_up_as_it_stands(records: list[Any]) -> None:
    assert all(any(MATCHER.match(e) for e in record.of("Encounter")) for record in records)


def test_each_rule_scenario_finds_something_in_some_synthetic_patient(outcomes: Any) -> None:
    found = {scenario.id for scenario, _, outcome in outcomes if outcome.findings}
    assert found >= {"in_visit.exam_recommendation", "in_visit.icu_watch", "in_visit.order_safety"}


def test_nobody_is_followed_up_after_a_death(records: list[Any]) -> None:
    dead = [record for record in records if deceased(record.patient)]
    assert dead
    for record in dead:
        encounter = latest(record)[0]
        assert run(FollowUp(), case_of(FollowUp(), record, encounter, "zh")).drafts == ()


def test_no_name_of_a_patient_stands_in_a_prompt_or_a_draft(records: list[Any]) -> None:
    for record in records:
        family = record.patient["name"][0]["family"]
        for scenario, trigger in triggers(record):
            case = case_of(scenario, record, trigger, "en")
            assert family not in str(chat(scenario.prompt(case), case).messages)
            assert family not in str(run(scenario, case).drafts)


@pytest.mark.stack
def test_the_reference_validator_finds_no_error_in_any_of_these_drafts(outcomes: Any, reference_errors: Any) -> None:
    drafts = [each.resource for _, _, outcome in outcomes for each in outcome.drafts]
    assert len(drafts) > 150
    assert reference_errors(drafts) == []
