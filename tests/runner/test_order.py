"""A patient's rows go in order, patients side by side, and an older version gives way to a newer one."""

from __future__ import annotations

from typing import Any

from pipelines.errors import ErrorClass, StepFailed
from pipelines.runner.batch import Outcome


def test_what_a_newer_version_overtook_is_stale_before_and_after_the_model(house: Any) -> None:
    house.enter(80, id_="o1", version="1")
    run_id = house.run()
    house.enter(90, id_="o1", version="2")
    assert house.carry(run_id).outcomes == {Outcome.STALE: 1}
    assert house.model.asked == []

    def overtaken(_: Any) -> str:
        house.enter(95, id_="o1", version="3")
        return '{"reasons": []}'

    house.model.says = overtaken
    assert house.carry().outcomes == {Outcome.STALE: 1}
    assert house.fhir.transactions == []
    assert [row.state for row in house.rows()] == ["stale", "stale", "waiting"]


def test_rows_of_one_patient_go_in_order_and_none_overtakes_one_that_waits(house: Any) -> None:
    for value in (80, 81, 82):
        house.enter(value, patient="p1")
    house.enter(83, patient="p2")
    house.model.says = lambda request: (
        StepFailed(ErrorClass.MODEL_TIMEOUT, "slow") if "pulse 81" in str(request.messages) else '{"reasons": []}'
    )
    summary = house.carry()
    assert summary.outcomes == {Outcome.WRITTEN: 2, Outcome.FAILED: 1, Outcome.HELD_BACK: 1}
    assert not summary.failed_all
    assert [(row.state, row.attempts) for row in house.rows()] == [
        ("written", 0), ("waiting", 1), ("waiting", 0), ("written", 0),
    ]  # fmt: skip
    assert house.rows()[2].error_class is None
    assert "pulse 82" not in str(house.model.asked)


def test_patients_are_worked_on_side_by_side_but_no_more_than_the_limit(house: Any) -> None:
    house.config = house.config.model_copy(update={"runner": house.config.runner.model_copy(update={"concurrency": 3})})
    for n in range(9):
        house.enter(80, patient=f"p{n}")
    house.carry()
    assert house.model.most_in_flight == 3
