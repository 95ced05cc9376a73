"""A failed try is counted in the part of the way in which it failed: reading, asking, guarding, writing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from fhir_adapters.errors import FhirConflict, FhirRejected, FhirUnavailable
from pipelines.errors import ErrorClass, StepFailed


def _reading_fails(house: Any) -> None:
    house.fhir.failures = [FhirUnavailable("GET Patient: 503", status=503)]


def _writing_fails(house: Any) -> None:
    house.fhir.refusals = [FhirUnavailable("POST Bundle: 503", status=503)]


def _reading_is_refused(house: Any) -> None:
    house.fhir.failures = [FhirRejected("GET Patient: 400", status=400)]


def _writing_is_refused(house: Any) -> None:
    house.fhir.refusals = [FhirRejected("POST Bundle: 422", status=422)]


def _writing_is_raced(house: Any) -> None:
    house.fhir.refusals = [FhirConflict("POST Bundle: 409", status=409)] * 5


def _bytes_are_gone(house: Any) -> None:
    house.payloads.bytes.clear()


def _model_is_silent(house: Any) -> None:
    house.model.says = lambda _: StepFailed(ErrorClass.MODEL_TIMEOUT, "no answer")


def _model_says_garbage(house: Any) -> None:
    house.model.says = lambda _: "garbage"


def _rules_are_broken(house: Any) -> None:
    house.scenario.broken = "rules"


def _drafts_are_broken(house: Any) -> None:
    house.scenario.broken = "nul"


@pytest.mark.parametrize(
    ("fails", "error_class", "hop"),
    [
        (_bytes_are_gone, "payload_gone", "context"),
        (_reading_fails, "fhir_unavailable", "context"),
        (_reading_is_refused, "fhir_rejected", "context"),
        (_rules_are_broken, "scenario_error", "answered"),
        (_model_is_silent, "model_timeout", "answered"),
        (_model_says_garbage, "model_invalid_output", "guarded"),
        (_drafts_are_broken, "scenario_error", "written"),
        (_writing_fails, "fhir_unavailable", "written"),
        (_writing_is_refused, "fhir_rejected", "written"),
        (_writing_is_raced, "fhir_conflict", "written"),
    ],
)
def test_a_failed_try_is_counted_in_the_hop_in_which_it_failed(
    house: Any, fails: Callable[[Any], None], error_class: str, hop: str
) -> None:
    house.enter(80)
    fails(house)
    house.carry()
    with house.engine.connect() as connection:
        counted = connection.execute(text("SELECT error_class, hop, count FROM failures")).all()
    assert [tuple(row) for row in counted] == [(error_class, hop, 1)]
