"""What is switched off is not asked and not written, and goes on from where it was when it is switched on."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.runner.batch import Outcome


def test_a_model_that_is_switched_off_is_not_asked_and_red_flags_go_out(house: Any) -> None:
    house.ledger.switch_off("model", "fake-model", by="dr", why="recall")
    house.enter(140)
    house.carry()
    assert house.model.asked == []
    assert len(house.fhir.written("Flag")) == 1
    assert house.rows()[0].state == "waiting"
    assert "switched off" in house.rows()[0].error


@pytest.mark.parametrize("kind", ["everything", "scenario"])
def test_a_switch_between_decision_and_work_keeps_the_rows_as_they_were(house: Any, kind: str) -> None:
    house.enter(140)
    run_id = house.run()
    house.ledger.switch_off(kind, "in_visit.watch" if kind == "scenario" else "", by="dr", why="halt")
    assert house.carry(run_id).outcomes == {Outcome.HELD_BACK: 1}
    (row,) = house.rows()
    assert (row.state, row.attempts, row.error_class, row.run_id) == ("waiting", 0, None, None)
    assert house.fhir.transactions == []
    house.ledger.switch_on(kind, "in_visit.watch" if kind == "scenario" else "", by="li")
    house.carry()
    assert house.rows()[0].state == "written"


def test_a_switch_that_is_turned_before_the_drafts_are_written_keeps_them(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.runner.batch._SWITCHES_KEEP", 0.0)

    def halted(_: Any) -> str:
        house.ledger.switch_off("everything", "", by="dr", why="halt")
        return '{"reasons": []}'

    house.enter(80)
    house.model.says = halted
    assert house.carry().outcomes == {Outcome.HELD_BACK: 1}
    assert house.fhir.transactions == []
    assert house.rows()[0].state == "inferred"
    house.ledger.switch_on("everything", "", by="li")
    house.carry()
    assert house.rows()[0].state == "written"
    assert len(house.model.asked) == 1
