"""The demo's patients start every built-in scenario, with no more work than a small model does in three minutes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from fhir_adapters.validate import problems
from pipelines.demo.added import added
from pipelines.demo.hospital import DemoPatient, patients
from pipelines.demo.journeys import Step, journey
from plugins.manager import load
from plugins.matching import Matcher
from plugins.scenario import Locale

NOW = datetime(2026, 11, 22, 8, tzinfo=UTC)
SCENARIOS = load().scenarios
MATCHER = Matcher(SCENARIOS.values())
#: What the demo's model answers in under two minutes, at the two answers a second that were measured.
MOST_ROWS = 150


@pytest.fixture(scope="module")
def people() -> list[DemoPatient]:
    return patients()


def steps(people: Sequence[DemoPatient], locale: Locale = "zh") -> list[Step]:
    played = [step for n, person in enumerate(people) for step in journey(person.id, person.problem, n, locale)]
    return [*played, *added(people, locale, NOW)]


def rows(people: Sequence[DemoPatient]) -> Counter[str]:
    return Counter(scenario.id for step in steps(people) for scenario in MATCHER.match(step.resource))


def test_every_built_in_scenario_is_started_and_all_of_them_stay_within_what_the_model_can_do(
    people: list[DemoPatient],
) -> None:
    started = rows(people)
    assert started.keys() == SCENARIOS.keys()
    assert sum(started.values()) <= MOST_ROWS, started


def test_each_scenario_is_started_in_its_own_stage(people: list[DemoPatient]) -> None:
    for step in steps(people):
        for scenario in MATCHER.match(step.resource):
            assert scenario.stage is step.stage, (scenario.id, step.path)


def test_every_patient_is_seen_in_every_stage(people: list[DemoPatient]) -> None:
    started = rows(people)
    for scenario in ("pre_visit.triage", "in_visit.admission_note", "post_visit.follow_up"):
        assert started[scenario] >= len(people)


@pytest.mark.parametrize("locale", ["zh", "en"])
def test_what_happens_is_valid_fhir_and_happens_once(people: list[DemoPatient], locale: Locale) -> None:
    played = steps(people, locale)
    assert len({(step.path, step.version) for step in played}) == len(played)
    for step in played:
        assert list(problems(json.loads(json.dumps(step.resource)), "R4")) == [], step.path


def test_what_is_added_is_named_as_the_demos_and_its_medicines_are_the_patients_own(people: list[DemoPatient]) -> None:
    own = {person.id: person.medicine for person in people}
    for step in added(people, "zh", NOW):
        assert step.path.split("/")[1].startswith("demo-")
        if "medicationCodeableConcept" in step.resource:
            patient = step.resource["subject"]["reference"].removeprefix("Patient/")
            assert step.resource["medicationCodeableConcept"] == own[patient]


def test_nothing_is_added_for_children_and_for_those_who_have_died(people: list[DemoPatient]) -> None:
    spared = [person for person in people if not person.grown_up]
    assert spared
    assert added(spared, "zh", NOW) == []


def test_the_ids_are_the_same_at_every_run(people: list[DemoPatient]) -> None:
    later = added(people, "zh", datetime(2027, 1, 1, tzinfo=UTC))
    assert [step.path for step in later] == [step.path for step in added(people, "zh", NOW)]
