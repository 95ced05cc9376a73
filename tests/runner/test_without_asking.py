"""A scenario that does not want a model: its rules' drafts are written, no model is asked, and the row is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pipelines.runner.batch import Outcome


@pytest.fixture
def quiet(house: Any) -> Any:
    """The house's scenario, which asks about nothing."""
    watch = type(house.scenario)

    class Quiet(watch):  # type: ignore[misc, valid-type]
        def asks(self, case: Any, findings: Sequence[Any]) -> bool:
            return False

        def rule_drafts(self, case: Any, findings: Sequence[Any]) -> Sequence[Any]:
            return watch.rule_drafts(self, case, findings) if findings else ()

    house.scenario = Quiet()
    return house


def test_what_the_rules_draft_is_written_by_the_rules_and_the_row_is_done(quiet: Any) -> None:
    quiet.enter(140)
    quiet.carry()
    assert quiet.model.asked == []
    assert len(quiet.fhir.written("Flag")) == 1
    assert quiet.fhir.written("RiskAssessment") == []
    (row,) = quiet.rows()
    assert (row.state, row.model, row.findings) == ("written", None, 1)


def test_where_the_rules_draft_nothing_nothing_is_written_and_the_row_is_done(quiet: Any) -> None:
    quiet.enter(80)
    assert quiet.carry().outcomes == {Outcome.WRITTEN: 1}
    assert quiet.model.asked == []
    assert quiet.fhir.transactions == []


def test_a_fault_in_asks_is_the_scenarios_and_stops_one_row(quiet: Any) -> None:
    quiet.scenario.asks = None
    quiet.enter(80)
    quiet.carry()
    (row,) = quiet.rows()
    assert row.error_class == "scenario_error"
    assert "asks() of the scenario" in row.error
