"""What is written to the FHIR server, once and no more, and what becomes of drafts that it does not take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fhir_adapters.errors import FhirConflict, FhirRejected, FhirUnavailable
from pipelines.runner.batch import Outcome


def test_an_event_becomes_a_labelled_draft_with_its_provenance(house: Any) -> None:
    house.enter(80)
    assert house.carry().outcomes == {Outcome.WRITTEN: 1}
    (risk,) = house.fhir.written("RiskAssessment")
    (device,) = house.fhir.written("Device")
    (provenance,) = house.fhir.written("Provenance")
    assert risk["meta"]["security"][0]["code"] == "AIAST"
    assert risk["note"] == [{"text": "pulse is high"}]
    assert device["deviceName"][0]["name"] == "fake-model"
    assert device["version"] == [{"value": "7"}]
    assert "备案-1" in json.dumps(device, ensure_ascii=False)
    assert provenance["entity"][0]["what"]["reference"] == "Observation/o0/_history/1"
    assert risk["performer"]["reference"] == provenance["agent"][0]["who"]["reference"]
    assert risk["performer"]["reference"].startswith("Device/new-")
    (row,) = house.rows()
    assert row.state == "written"
    assert row.drafts is None
    assert row.created == 1
    assert row.written == [
        reference for reference in house.fhir.resources if reference.startswith("RiskAssessment/new")
    ]
    assert row.started_at < row.context_at < row.answered_at < row.guarded_at < row.written_at
    assert (row.model, row.prompt_tokens, row.completion_tokens, row.model_seconds) == ("fake-model", 100, 20, 0.5)


def test_running_the_same_run_again_does_nothing(house: Any) -> None:
    house.enter(80)
    run_id = house.run()
    house.carry(run_id)
    assert house.carry(run_id).outcomes == {}
    assert len(house.fhir.transactions) == 1
    assert len(house.model.asked) == 1


def test_a_lost_answer_is_repeated_and_recognised(house: Any) -> None:
    house.enter(80)
    house.fhir.lose_answer = True
    house.carry()
    (row,) = house.rows()
    assert (row.state, row.error_class, row.attempts) == ("inferred", "fhir_unavailable", 0)
    house.wake()
    house.carry()
    (row,) = house.rows()
    assert (row.state, row.created, row.recognised) == ("written", 0, 1)
    assert len(house.fhir.written("RiskAssessment")) == 1
    assert len(house.model.asked) == 1


def test_a_race_for_the_same_draft_is_won_by_trying_again(house: Any) -> None:
    house.enter(80)
    house.fhir.refusals = [FhirConflict("POST Bundle: 409", status=409) for _ in range(3)]
    assert house.carry().outcomes == {Outcome.WRITTEN: 1}


@pytest.mark.parametrize(
    ("failures", "state", "error_class", "attempts"),
    [
        ([FhirConflict("409", status=409)] * 5, "inferred", "fhir_conflict", 0),
        ([FhirConflict("412", status=412)], "inferred", "fhir_rejected", 1),
        ([FhirUnavailable("503", status=503)], "inferred", "fhir_unavailable", 0),
        ([FhirRejected("422", status=422)], "inferred", "fhir_rejected", 1),
    ],
)
def test_drafts_that_could_not_be_written_are_kept_and_the_model_is_not_asked_again(
    house: Any, failures: list[Exception], state: str, error_class: str, attempts: int
) -> None:
    house.enter(80)
    house.fhir.refusals = list(failures)
    house.carry()
    (row,) = house.rows()
    assert (row.state, row.error_class, row.attempts) == (state, error_class, attempts)
    house.wake()
    house.carry()
    assert house.rows()[0].state == "written"
    assert len(house.model.asked) == 1


def test_a_draft_that_the_server_never_takes_is_parked(house: Any) -> None:
    house.enter(80)
    for _ in range(3):
        house.fhir.refusals = [FhirRejected("POST Bundle: 422", status=422)]
        house.carry()
        house.wake()
    assert house.rows()[0].state == "parked"
    assert house.rows()[0].error == "POST Bundle: 422"


def test_a_source_without_a_way_back_costs_no_model_call_and_says_what_to_set(house: Any) -> None:
    house.enter(140, source="one-way")
    house.carry()
    (row,) = house.rows()
    assert row.error_class == "fhir_rejected"
    assert "one-way has no base_url" in row.error
    assert house.model.asked == []
