"""A resource version starts the scenarios whose trigger it meets, each once."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from fhir_adapters.fhirpath import FhirPathError
from plugins.in_visit.admission_note import AdmissionNote
from plugins.matching import Matcher
from plugins.post_visit.follow_up import FollowUp
from plugins.pre_visit.triage import Triage
from plugins.scenario import Scenario, Trigger

ALL = (Triage(), AdmissionNote(), FollowUp())


def started(resource: dict[str, Any], *scenarios: Scenario[Any]) -> list[str]:
    return [s.id for s in Matcher(scenarios or ALL).match(resource)]


def encounter(status: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Encounter", "id": "e", "status": status, "class": {"code": kind}, **more}


def with_trigger(*chosen: Trigger) -> Scenario[Any]:
    class Other(Triage):
        triggers: ClassVar[Any] = chosen

    return Other()


def test_what_must_be_subscribed_to_is_what_triggers_name() -> None:
    assert Matcher(ALL).types == {"QuestionnaireResponse", "Appointment", "Encounter"}


@pytest.mark.parametrize(
    ("resource", "ids"),
    [
        (encounter("in-progress", "IMP"), ["in_visit.admission_note"]),
        (encounter("planned", "IMP"), []),
        (encounter("finished", "IMP"), ["post_visit.follow_up"]),
        (encounter("finished", "AMB"), []),
        (encounter("finished", "AMB", reasonCode=[{"text": "cough"}]), ["post_visit.follow_up"]),
        ({"resourceType": "QuestionnaireResponse", "status": "completed"}, ["pre_visit.triage"]),
        ({"resourceType": "QuestionnaireResponse", "status": "in-progress"}, []),
        ({"resourceType": "Appointment", "status": "booked"}, []),
        ({"resourceType": "Appointment", "status": "booked", "description": "rash"}, ["pre_visit.triage"]),
        ({"resourceType": "Appointment", "status": "cancelled", "description": "rash"}, []),
        ({"resourceType": "Patient"}, []),
        ({}, []),
    ],
)
def test_the_built_in_scenarios_start_when_they_should(resource: dict[str, Any], ids: list[str]) -> None:
    assert started(resource) == ids


def test_lists_on_the_way_match_when_any_element_does() -> None:
    scenario = with_trigger(Trigger("Encounter", {"type.coding.code": ("x",)}))
    both = {"resourceType": "Encounter", "type": [{"coding": [{"code": "y"}]}, {"coding": [{"code": "x"}, {}]}]}
    assert started(both, scenario)
    assert not started({"resourceType": "Encounter", "type": [{"text": "x"}]}, scenario)


def test_an_absent_path_does_not_match_and_a_boolean_matches_as_fhir_writes_it() -> None:
    scenario = with_trigger(Trigger("Patient", {"active": ("true",)}))
    assert started({"resourceType": "Patient", "active": True}, scenario)
    assert not started({"resourceType": "Patient", "active": False}, scenario)
    assert not started({"resourceType": "Patient"}, scenario)


def test_two_triggers_that_are_both_met_start_a_scenario_once() -> None:
    scenario = with_trigger(Trigger("Patient"), Trigger("Patient", fhirpath="active"))
    assert started({"resourceType": "Patient", "active": True}, scenario) == ["pre_visit.triage"]


def test_fhirpath_is_not_asked_where_the_cheap_tests_already_fail() -> None:
    scenario = with_trigger(Trigger("Patient", {"active": ("true",)}, fhirpath="name.family > 3"))
    named = {"resourceType": "Patient", "name": [{"family": "a"}]}
    assert not started(named, scenario)
    with pytest.raises(FhirPathError):
        started(named | {"active": True}, scenario)
