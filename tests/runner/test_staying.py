"""A run that stays takes further rows at once, in the same process, and leaves when it should."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from pipelines.errors import ErrorClass, StepFailed
from pipelines.runner import carry as runner
from pipelines.runner.batch import Outcome, Summary


def stays(house: Any, **settings: Any) -> None:
    chosen = {"stay": 30.0, **settings}
    house.config = house.config.model_copy(update={"runner": house.config.runner.model_copy(update=chosen)})


def until(what: Callable[[], bool], seconds: float = 30) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it did not come to that"
        time.sleep(0.02)


class Meanwhile:
    """A run in a thread of its own; leaving the block ends its stay and waits for it."""

    def __init__(self, house: Any, run_id: str = "") -> None:
        self._house = house
        self.summaries: list[Summary] = []
        self._thread = threading.Thread(target=lambda: self.summaries.append(house.carry(run_id)))

    def __enter__(self) -> Meanwhile:
        self._thread.start()
        until(lambda: bool(staying(self._house)))
        return self

    def __exit__(self, *_: object) -> None:
        runner.leave()
        self.ended()

    def ended(self) -> Summary:
        self._thread.join(30)
        assert not self._thread.is_alive(), "it stays"
        return self.summaries[0]


def staying(house: Any) -> list[Any]:
    with house.engine.connect() as connection:
        return list(connection.execute(text("SELECT * FROM runs WHERE stays_until > now() AND closed_at IS NULL")))


def written(house: Any) -> int:
    return [row.state for row in house.rows()].count("written")


def test_further_rows_are_taken_by_the_same_run_and_counted_with_it(house: Any) -> None:
    stays(house)
    house.enter(80)
    with Meanwhile(house) as run:
        until(lambda: written(house) == 1)
        for n in range(3):
            house.enter(80, patient=f"p{n}")
            until(lambda n=n: written(house) == 2 + n)
        house.enter(140, patient="p9")
        until(lambda: written(house) == 5)
        assert house.ledger.close_finished_runs() == []
    assert run.ended().outcomes == {Outcome.WRITTEN: 5}
    assert len({row.run_id for row in house.rows()}) == 1
    assert len(house.ledger.close_finished_runs()) == 1


def test_rows_are_taken_while_another_still_waits_for_its_model(house: Any) -> None:
    stays(house)
    goes_on = threading.Event()
    house.model.says = lambda _: '{"reasons": []}'
    chat = house.model.chat

    async def slow_for_the_first(request: Any) -> Any:
        if not house.model.asked:
            house.model.asked.append(request)
            await asyncio.to_thread(goes_on.wait, 30)
        return await chat(request)

    house.model.chat = slow_for_the_first
    house.enter(80)
    with Meanwhile(house):
        house.enter(81, patient="p2")
        until(lambda: [row.state for row in house.rows()] == ["running", "written"])
        goes_on.set()
        until(lambda: written(house) == 2)


def test_a_patients_next_row_is_taken_when_the_one_before_is_done(house: Any) -> None:
    stays(house)
    house.enter(80)
    with Meanwhile(house):
        house.enter(81)
        house.enter(82)
        until(lambda: written(house) == 3)
    values = [request.messages[1]["content"] for request in house.model.asked]
    assert [value for text_ in values for value in ("80", "81", "82") if f"pulse {value}" in text_] == [
        "80",
        "81",
        "82",
    ]


def test_what_was_read_of_a_patient_is_forgotten_before_the_next(house: Any) -> None:
    stays(house)
    house.enter(80)
    with Meanwhile(house):
        until(lambda: written(house) == 1)
        house.enter(81)
        until(lambda: written(house) == 2)
    assert house.fhir.reads == ["Patient/p1", "Patient/p1"]
    assert "forgotten" in house.payloads.expected


@pytest.mark.parametrize(
    "why", ["nothing comes", "its life is over", "it has taken enough", "withdrawn", "switched off", "told to leave"]
)
def test_it_leaves(house: Any, why: str) -> None:
    limits = {
        "nothing comes": {"stay": 0.3},
        "its life is over": {"stay_life": 1.5},
        "it has taken enough": {"stay_rows": 1},
    }
    stays(house, **limits.get(why, {}))
    house.enter(80)
    run = Meanwhile(house)
    run._thread.start()
    until(lambda: bool(staying(house)) or bool(run.summaries))
    if why == "withdrawn":
        house.ledger.withdraw()
    elif why == "switched off":
        house.ledger.switch_off("everything", "", by="me", why="so")
    elif why == "told to leave":
        runner.leave()
    elif why == "it has taken enough":
        house.enter(81, patient="p2")
        until(lambda: written(house) == 2)
    assert run.ended().outcomes[Outcome.WRITTEN] >= 1
    assert staying(house) == []


def test_where_everything_failed_it_does_not_stay(house: Any) -> None:
    stays(house)
    house.model.says = lambda _: StepFailed(ErrorClass.MODEL_UNAVAILABLE, "away")
    house.enter(80)
    assert house.carry().failed_all


def test_beside_a_row_that_failed_before_nothing_is_taken(house: Any) -> None:
    stays(house)
    goes_on = threading.Event()
    house.enter(80)
    house.fhir.refusals = []
    house.model.says = lambda _: StepFailed(ErrorClass.MODEL_TIMEOUT, "slow")
    house.carry()
    house.wake()
    house.model.says = lambda _: '{"reasons": []}'
    house.fhir.before_transaction = lambda: goes_on.wait(30) and None
    run = Meanwhile(house)
    run._thread.start()
    until(lambda: [row.state for row in house.rows()] == ["inferred"])
    house.enter(81, patient="p2")
    assert staying(house) == []
    assert house.rows()[1].run_id is None
    house.fhir.before_transaction = lambda: None
    goes_on.set()
    until(lambda: written(house) == 2)
    runner.leave()
    assert run.ended().outcomes == {Outcome.WRITTEN: 2}


def test_a_signal_to_the_task_ends_the_stay(house: Any) -> None:
    """As Airflow's handler of SIGTERM does: it calls `on_kill`, in the thread in which the loop waits."""
    stays(house)
    house.enter(80)
    before = signal.signal(signal.SIGTERM, lambda *_: runner.leave())
    killer = threading.Timer(2.0, os.kill, (os.getpid(), signal.SIGTERM))
    try:
        killer.start()
        assert house.carry().outcomes == {Outcome.WRITTEN: 1}
    finally:
        killer.cancel()
        signal.signal(signal.SIGTERM, before)
    assert staying(house) == []


def test_a_standing_run_begins_without_rows_outlives_every_stay_and_takes_what_comes(house: Any) -> None:
    stays(house, stay=0.05)
    run = house.ledger.stand("in_visit.watch")
    with Meanwhile(house, run.run_id) as meanwhile:
        time.sleep(0.5)  # ten times as long as a run stays that had rows
        house.enter(80)
        until(lambda: written(house) == 1)
        time.sleep(0.5)
        house.enter(81, patient="p2")
        until(lambda: written(house) == 2)
    assert meanwhile.ended().outcomes == {Outcome.WRITTEN: 2}
    assert {row.run_id for row in house.rows()} == {run.run_id}
    assert [closed.taken for closed in house.ledger.close_finished_runs()] == [2]


def test_a_standing_run_ends_when_its_life_is_over(house: Any) -> None:
    stays(house, stay_life=0.3)
    run = house.ledger.stand("in_visit.watch")
    with Meanwhile(house, run.run_id) as meanwhile:
        assert meanwhile.ended().outcomes == {}


def test_a_standing_run_of_a_scenario_that_is_not_installed_ends_at_once(house: Any) -> None:
    stays(house)
    house.installed = False
    run = house.ledger.stand("in_visit.watch")
    assert house.carry(run.run_id).outcomes == {}
