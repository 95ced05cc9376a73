"""A red flag is at the FHIR server before a model is asked, and whether or not one answers."""

from __future__ import annotations

from typing import Any

from pipelines.errors import ErrorClass, StepFailed


def test_a_red_flag_is_written_with_the_model_down_and_the_rest_follows_when_it_is_back(house: Any) -> None:
    house.enter(140)
    house.model.says = lambda _: StepFailed(ErrorClass.MODEL_UNAVAILABLE, "gave no answer")
    summary = house.carry()
    assert summary.errors == {ErrorClass.MODEL_UNAVAILABLE: 1}
    assert summary.failed_all
    (flag,) = house.fhir.written("Flag")
    assert flag["meta"]["security"][0]["code"] == "AIAST"
    (device,) = house.fhir.written("Device")
    assert device["type"] == {"text": "Rules engine"}
    (row,) = house.rows()
    assert (row.state, row.attempts, row.created) == ("waiting", 0, 1)
    assert row.rules_written_at is not None

    house.model.says = lambda _: '{"reasons": []}'
    house.wake()
    house.carry()
    (row,) = house.rows()
    assert (row.state, row.created) == ("written", 2)
    assert len(house.fhir.written("Flag")) == 1
    (risk,) = house.fhir.written("RiskAssessment")
    assert risk["basis"][0]["reference"] == row.written[0]


def test_a_red_flag_is_at_the_server_before_the_model_is_asked(house: Any) -> None:
    flags_when_asked: list[int] = []

    def says(_: Any) -> str:
        flags_when_asked.append(len(house.fhir.written("Flag")))
        return '{"reasons": []}'

    house.enter(140)
    house.model.says = says
    house.carry()
    assert flags_when_asked == [1]
    (risk,) = house.fhir.written("RiskAssessment")
    assert risk["basis"][0]["reference"].startswith("Flag/new-")
