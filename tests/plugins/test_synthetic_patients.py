"""Every synthetic patient gets valid drafts of every scenario, even from a model that answers noise."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from plugins.fhir_text import DEVICE, deceased, display, draft, listed, moment
from plugins.golden import Outcome, run
from plugins.in_visit.admission_note import AdmissionNote
from plugins.manager import load
from plugins.matching import Matcher
from plugins.post_visit.follow_up import FollowUp
from plugins.pre_visit.triage import Triage
from plugins.prompting import chat
from plugins.scenario import Case, Locale, Scenario, reference
from plugins.testing import draft_problems

MATCHER = Matcher(load().scenarios.values())


def case_of(scenario: Scenario[Any], record: Any, trigger: dict[str, Any], locale: Locale) -> Case:
    """The case that the runner would read for this trigger, one hour after the encounter ended."""
    encounter = reference(trigger) if trigger["resourceType"] == "Encounter" else None
    now = moment(latest(record)[0]["period"]["end"])
    assert now is not None
    now += timedelta(hours=1)
    found = {query.name: record.search(query, now, encounter) for query in scenario.record}
    return Case(trigger, record.patient, found, locale, now)


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


def triggers(record: Any) -> Iterator[tuple[Scenario[Any], dict[str, Any]]]:
    encounter = latest(record)[0]
    yield Triage(), intake(record)
    yield AdmissionNote(), encounter | {"status": "in-progress", "class": {"code": "IMP"}}
    yield FollowUp(), encounter | {"reasonCode": encounter.get("reasonCode") or [{"text": "visit"}]}


def outcomes(records: list[Any]) -> Iterator[tuple[Case, Outcome]]:
    for n, record in enumerate(records):
        for scenario, trigger in triggers(record):
            assert [s.id for s in MATCHER.match(trigger)] == [scenario.id]
            case = case_of(scenario, record, trigger, "zh" if n % 2 else "en")
            yield case, run(scenario, case)


def test_every_scenario_writes_valid_drafts_for_every_patient(records: list[Any]) -> None:
    assert len(records) >= 20
    for case, outcome in outcomes(records):
        held = [case.trigger, case.patient, *(r for found in case.resources.values() for r in found)]
        known = {reference(r) for r in held if r} | {DEVICE} | {draft(d.name) for d in outcome.drafts}
        assert outcome.drafts or deceased(case.patient)
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
def test_the_reference_validator_finds_no_error_in_any_of_these_drafts(
    records: list[Any], reference_errors: Any
) -> None:
    drafts = [each.resource for _, outcome in outcomes(records) for each in outcome.drafts]
    assert len(drafts) > 150
    assert reference_errors(drafts) == []
