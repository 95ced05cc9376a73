"""An answer that is none is asked for once more, then parked; a statement without support is cut."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.manager import load
from plugins.model_backend import ChatAnswer
from tests.runner.fakes import answer


@pytest.mark.parametrize("bad", ["not json", '{"reasons": "none"}', '{"reasons": []} and more', ""])
def test_an_answer_that_is_none_is_asked_for_once_more_and_otherwise(house: Any, bad: str) -> None:
    house.enter(80)
    house.model.says = lambda _: bad if len(house.model.asked) == 1 else '{"reasons": []}'
    house.carry()
    first, second = house.model.asked
    assert first.temperature == 0.0
    assert second.temperature > 0
    assert second.request_id != first.request_id
    (row,) = house.rows()
    assert row.state == "written"
    assert (row.prompt_tokens, row.model_seconds) == (200, 1.0)


def test_an_answer_that_is_never_one_is_parked_after_the_last_attempt(house: Any) -> None:
    house.enter(80)
    house.model.says = lambda _: ChatAnswer('{"reasons": [', "length", 10, 10, 0.1, "fake-model")
    for _ in range(3):
        house.carry()
        house.wake()
    (row,) = house.rows()
    assert (row.state, row.error_class, row.attempts) == ("parked", "model_invalid_output", 3)
    assert len(house.model.asked) == 6


def test_statements_without_support_are_cut_counted_and_not_written(house: Any) -> None:
    house.enter(80)
    house.guards = load(built_in=["plugins.guards.numbers"]).guards
    house.model.says = lambda _: answer("pulse 80", "R1", "pulse 200", "R1", "all well", "R7")
    house.carry()
    assert house.rows()[0].cut_statements == 2
    assert house.fhir.written("RiskAssessment")[0]["note"] == [{"text": "pulse 80"}]
