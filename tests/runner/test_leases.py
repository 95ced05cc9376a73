"""A worker writes while the lease is its own: who lost it writes nothing, who works on keeps it."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.runner.batch import Outcome


def test_a_worker_that_was_thought_dead_writes_nothing(house: Any) -> None:
    house.enter(140)
    run_id = house.run()

    def overtaken(_: Any) -> str:
        house.ledger.claim(run_id, 30)
        return '{"reasons": []}'

    house.model.says = overtaken
    assert house.carry(run_id).outcomes == {Outcome.LEASE_LOST: 1}
    assert house.rows()[0].state == "running"
    assert house.rows()[0].drafts is None
    assert len(house.fhir.transactions) == 1  # the red flag, while the lease was its own


def test_a_writer_that_was_thought_dead_writes_nothing(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house.enter(80)
    run_id = house.run()
    confirm = house.ledger.confirm

    def overtaken(*arguments: Any) -> Any:
        house.ledger.claim(run_id, 30)
        return confirm(*arguments)

    monkeypatch.setattr(house.ledger, "confirm", overtaken)
    assert house.carry(run_id).outcomes == {Outcome.LEASE_LOST: 1}
    assert house.fhir.transactions == []
    assert house.rows()[0].state == "inferred"
    monkeypatch.undo()
    assert house.carry(run_id).outcomes == {Outcome.WRITTEN: 1}
    assert len(house.model.asked) == 1


def test_a_lease_lost_before_the_red_flag_stops_the_red_flag_too(house: Any) -> None:
    house.enter(140)
    run_id = house.run()
    rules = house.scenario.rules

    def overtaken(case: Any) -> Any:
        house.ledger.claim(run_id, 30)
        return rules(case)

    house.scenario.rules = overtaken
    assert house.carry(run_id).outcomes == {Outcome.LEASE_LOST: 1}
    assert house.fhir.transactions == []
    assert house.model.asked == []


def test_leases_are_kept_while_a_model_thinks(house: Any) -> None:
    house.config = house.config.model_copy(update={"runner": house.config.runner.model_copy(update={"lease": 0.2})})
    house.enter(80)
    until: list[Any] = []

    def says(_: Any) -> str:
        until.append(house.rows()[0].lease_until)
        return "none" if len(until) < 30 else '{"reasons": []}'

    from pipelines.runner import asking

    before, asking.ASKED_AT_MOST = asking.ASKED_AT_MOST, 30
    try:
        house.model.says = says
        house.carry()
    finally:
        asking.ASKED_AT_MOST = before
    assert house.rows()[0].state == "written"
    assert until[-1] > until[0]
