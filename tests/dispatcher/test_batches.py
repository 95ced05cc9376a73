"""Rows into Airflow runs: when, how many, and what an unreachable, refusing or forgetful Airflow does to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from monitoring import metrics
from pipelines.airflow_api import AirflowApi
from pipelines.config import Dispatcher
from pipelines.dispatcher.backoff import Backoff, Holds
from pipelines.dispatcher.batches import Batches
from pipelines.dispatcher.pressure import Pressure
from pipelines.dispatcher.reaper import Reaper
from pipelines.errors import AirflowUnavailable
from pipelines.ledger import EventRow, Incoming, Inference, Ledger, Match, Position, State, Written
from pipelines.ledger.staying import Stayer

NOTE = "post_visit.follow_up"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def airflow(fake_airflow) -> Iterator[AirflowApi]:
    made = AirflowApi(fake_airflow.config, keep_dags=0.0)
    yield made
    made.close()


@pytest.fixture
def fill(ledger: Ledger) -> Callable[..., None]:
    """Puts rows into the ledger: `fill(5)`, each of a patient of its own."""
    offset = iter(range(100_000))

    def fill_(count: int, scenario: str = NOTE) -> None:
        batch = []
        for o in (next(offset) for _ in range(count)):
            position = Position("t", 0, o)
            event = EventRow(f"e{o}", "hospital", "R4", "Encounter", f"e{o}", "1", None, "written", f"p{o}", position,
                             LONG_AGO, LONG_AGO)  # fmt: skip
            batch.append(Incoming(position, event, (Match(scenario, "1", scenario.split(".")[0]),)))
        ledger.record(batch)

    return fill_


def batches(ledger: Ledger, airflow: AirflowApi, **settings: Any) -> Batches:
    config = Dispatcher.model_validate({"linger": 3600, "batch_size": 10, "max_open_runs": 2, **settings})
    pressure = Pressure(config.max_waiting)
    made = Batches(config, ledger, airflow, {NOTE}, pressure, Holds(3600, 3600), Backoff(0.01, 0.01))
    made.pressure = pressure  # type: ignore[attr-defined]
    return made


def test_the_first_rows_are_taken_at_once(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    fill(3)
    batches(ledger, airflow).step()
    assert [conf["items"] for conf in fake_airflow.conf.values()] == [3]
    assert [run.posted for run in ledger.open_runs()] == [True]
    assert fake_airflow.work(ledger) == 3


def test_while_a_run_is_under_way_rows_wait_for_company(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    made = batches(ledger, airflow)
    fill(1)
    made.step()
    fill(9)
    made.step()
    assert len(fake_airflow.runs) == 1
    fill(1)
    made.step()
    assert sorted(conf["items"] for conf in fake_airflow.conf.values()) == [1, 10]


def test_rows_linger_no_longer_than_they_may(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    made = batches(ledger, airflow, linger=1e-6)
    fill(1)
    made.step()
    fill(1)
    made.step()
    assert len(fake_airflow.runs) == 2


def test_no_more_runs_are_open_than_may_be_and_a_finished_one_makes_room(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    made = batches(ledger, airflow, linger=1e-6)
    for _ in range(4):
        fill(1)
        made.step()
    assert len(fake_airflow.runs) == 2
    fake_airflow.work(ledger)
    made.step()
    assert len(fake_airflow.runs) == 3
    assert fake_airflow.work(ledger) == 2


def test_while_no_run_could_be_made_what_waits_is_not_counted_at_every_turn(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, monkeypatch
):
    counted = []
    count = ledger.backlog
    monkeypatch.setattr(ledger, "backlog", lambda: counted.append(1) or count())
    made = batches(ledger, airflow, linger=1e-6, batch_size=1)
    fill(3)
    while made.step(woken=False) == 0.0:
        pass
    assert len(fake_airflow.runs) == 2
    before = len(counted)
    made.step(woken=False)
    assert len(counted) == before
    made.step(woken=True)
    assert len(counted) == before + 1
    fake_airflow.work(ledger)
    made.step(woken=False)
    assert len(fake_airflow.runs) == 3


def test_rows_of_a_paused_scenario_wait_and_go_on_afterwards(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    made = batches(ledger, airflow)
    fake_airflow.paused[NOTE] = True
    fill(3)
    made.step()
    assert fake_airflow.runs == {}
    assert ledger.account().work == {State.WAITING: 3}
    fake_airflow.paused[NOTE] = False
    made.step()
    assert fake_airflow.work(ledger) == 3


@pytest.mark.parametrize("absent", ["not installed here", "no DAG in Airflow"])
def test_rows_of_a_scenario_that_cannot_run_wait_and_hold_nobody_up(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, absent: str, caplog
):
    other = "pre_visit.uninstalled" if absent == "not installed here" else NOTE
    if other == NOTE:
        fake_airflow.paused = {}
    fill(3, other)
    made = batches(ledger, airflow, max_waiting=2)
    made.step()
    made.step()
    assert fake_airflow.runs == {}
    assert ledger.account().work == {State.WAITING: 3}
    assert caplog.text.count(f"{other}: rows wait") == 1
    assert not made.pressure.too_high


def test_reading_stops_while_too_much_waits(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    made = batches(ledger, airflow, max_waiting=5, batch_size=2)
    fill(12)
    made.step()
    assert made.pressure.too_high
    for _ in range(8):
        made.step()
        fake_airflow.work(ledger)
    assert not made.pressure.too_high


def test_while_airflow_cannot_be_asked_no_row_is_taken(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    made = batches(ledger, airflow, max_waiting=2)
    fake_airflow.status = 503
    fill(3)
    with pytest.raises(AirflowUnavailable):
        made.step()
    assert ledger.open_runs() == []
    assert made.pressure.too_high
    fake_airflow.status = None
    made.step()
    assert fake_airflow.work(ledger) == 3


def test_a_run_whose_answer_was_lost_is_asked_for_again_and_is_one_run(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    made = batches(ledger, airflow)
    fake_airflow.answers_lost = 1
    fill(3)
    with pytest.raises(AirflowUnavailable):
        made.step()
    assert [run.posted for run in ledger.open_runs()] == [False]
    made.step()
    assert [run.posted for run in ledger.open_runs()] == [True]
    assert len(fake_airflow.runs) == 1
    assert fake_airflow.work(ledger) == 3


def test_a_refused_run_gives_its_rows_back_and_the_scenario_is_held(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    made = batches(ledger, airflow)
    fill(3)
    run = ledger.take_run(NOTE, 10)  # decided on before the DAG went away
    assert run is not None
    fake_airflow.paused = {}
    made.step()
    assert ledger.open_runs() == []
    assert ledger.account().work == {State.WAITING: 3}
    fake_airflow.paused = {NOTE: False}
    made.step()
    assert fake_airflow.runs == {}


def test_the_thread_outlives_an_airflow_that_is_away(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, until):
    import threading

    stop, wake = threading.Event(), threading.Event()
    fake_airflow.status = 503
    fill(2)
    thread = threading.Thread(target=batches(ledger, airflow).run, args=(stop, wake))
    thread.start()
    wake.set()
    until(lambda: fake_airflow.logins)
    fake_airflow.status = None
    until(lambda: fake_airflow.runs)
    stop.set()
    wake.set()
    thread.join()
    assert fake_airflow.work(ledger) == 2


# --- the reaper -------------------------------------------------------------------------------------------------------


def reaper(ledger: Ledger, airflow: AirflowApi, holds: Holds | None = None, grace: float = -1.0) -> Reaper:
    return Reaper(ledger, airflow, holds or Holds(3600, 3600), 1.0, lambda: None, grace)


@pytest.mark.parametrize("ended", ["success", "failed", None])
def test_a_run_that_ended_with_rows_unfinished_gives_them_back(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, ended: str | None
):
    fill(3)
    batches(ledger, airflow).step()
    (key,) = fake_airflow.runs
    if ended is None:
        del fake_airflow.runs[key]
    else:
        fake_airflow.runs[key] = ended
    holds = Holds(3600, 3600)
    assert reaper(ledger, airflow, holds).step() == 3
    assert ledger.open_runs() == []
    assert ledger.account().work == {State.WAITING: 3}
    assert holds.holds(NOTE)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_run_under_way_is_left_alone(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, state: str):
    fill(3)
    batches(ledger, airflow).step()
    (key,) = fake_airflow.runs
    fake_airflow.runs[key] = state
    assert reaper(ledger, airflow).step() == 0
    assert len(ledger.open_runs()) == 1


def test_a_run_that_airflow_does_not_know_yet_is_left_alone_for_a_while(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, ledger_engine: Engine
):
    fill(1)
    batches(ledger, airflow).step()
    fake_airflow.runs.clear()
    assert reaper(ledger, airflow, grace=3600).step() == 0
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE runs SET posted_at = now() - interval '2 hours'"))
    assert reaper(ledger, airflow, grace=3600).step() == 1


def test_a_run_that_was_decided_on_and_not_posted_is_not_the_reapers(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    fill(1)
    ledger.take_run(NOTE, 1)
    assert reaper(ledger, airflow).step() == 0
    assert len(ledger.open_runs()) == 1


def test_a_finished_run_ends_the_hold_on_its_scenario(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    fill(1)
    batches(ledger, airflow).step()
    fake_airflow.work(ledger)
    holds = Holds(3600, 3600)
    holds.failed(NOTE)
    assert reaper(ledger, airflow, holds).step() == 0
    assert not holds.holds(NOTE)
    assert ledger.open_runs() == []


def test_waits_grow_up_to_their_cap_and_start_anew():
    backoff = Backoff(1.0, 8.0)
    waits = [backoff.failed() for _ in range(50)]
    assert waits[0] <= 1.0
    assert 4.0 < max(waits[4:]) <= 8.0
    backoff.succeeded()
    assert backoff.failed() <= 1.0


def test_how_long_ago_a_run_was_posted_is_told(ledger: Ledger, airflow: AirflowApi, fill, ledger_engine: Engine):
    fill(1)
    batches(ledger, airflow).step()
    with ledger_engine.begin() as connection:
        connection.execute(
            text("UPDATE runs SET decided_at = now() - interval '1 day', posted_at = now() - interval '1 hour'")
        )
    (run,) = ledger.open_runs()
    assert timedelta(seconds=run.age) >= timedelta(hours=1)
    assert timedelta(seconds=run.age) < timedelta(hours=2)


def test_rows_for_a_model_without_room_wait_in_the_ledger_until_there_is_some(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    class Room:
        says = "9 requests wait at model m"

        def lacks(self, scenario: str, oldest: float) -> str:
            assert scenario == NOTE
            assert oldest >= 0
            return self.says

    room: Any = Room()
    config = Dispatcher.model_validate({"batch_size": 10})
    pressure, holds = Pressure(config.max_waiting), Holds(3600, 3600)
    made = Batches(config, ledger, airflow, {NOTE}, pressure, holds, Backoff(0.01, 0.01), room)
    fill(3)
    made.step()
    assert fake_airflow.conf == {}
    assert ledger.account().work == {State.WAITING: 3}
    room.says = ""
    made.step()
    assert [conf["items"] for conf in fake_airflow.conf.values()] == [3]


# --- runs that stay ---------------------------------------------------------------------------------------------------


def stays(ledger: Ledger, fake_airflow: Any) -> Stayer:
    """The one run that is there has written its rows, and stays."""
    [run] = ledger.open_runs()
    fake_airflow.work(ledger)
    stayer = Stayer.new(run.run_id, rank=1, most=2, slots=4, seconds=60)
    assert ledger.stay(stayer, begins=True)
    return stayer


def test_rows_wait_for_a_run_that_stays_as_long_as_for_company_and_then_get_another(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    fill(1)
    made = batches(ledger, airflow)
    made.step()
    stayer = stays(ledger, fake_airflow)
    fill(25)
    made.step()
    assert len(fake_airflow.runs) == 1, "a full batch waits for it as well"
    taken = ledger.take_more(stayer, 10, 60)
    assert taken is not None and len(taken) == 10
    batches(ledger, airflow, linger=1e-6).step()
    assert len(fake_airflow.runs) == 2


@pytest.mark.parametrize("why", ["paused in Airflow", "held", "not installed", "the model has no room"])
def test_a_run_that_stays_is_told_to_take_no_more_when_its_scenario_may_not_go_on(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, why: str
):
    fill(1)
    made = batches(ledger, airflow)
    made.step()
    stayer = stays(ledger, fake_airflow)
    made.step()
    assert ledger.stay(stayer), "while all is well it stays"
    if why == "paused in Airflow":
        fake_airflow.paused[NOTE] = True
    elif why == "held":
        made._holds.failed(NOTE)
    elif why == "not installed":
        made._installed = frozenset()
    else:
        made._room = type("Full", (), {"lacks": lambda *_: "it is full"})()
    made.step()
    fill(1)
    assert ledger.take_more(stayer, 10, 60) is None
    assert not ledger.stay(stayer, begins=True)


def test_a_run_that_stays_is_looked_after_when_its_process_says_nothing_any_more(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, ledger_engine: Engine
):
    fill(1)
    batches(ledger, airflow).step()
    stayer = stays(ledger, fake_airflow)
    fill(1)
    assert ledger.take_more(stayer, 10, 60)
    reaper = Reaper(ledger, airflow, Holds(3600, 3600), 1.0, lambda: None, grace=0.0)
    fake_airflow.runs[next(iter(fake_airflow.runs))] = "failed"
    assert reaper.step() == 0
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE runs SET stays_until = now()"))
    assert reaper.step() == 1


def test_a_run_that_stays_is_counted_while_it_does_and_its_rows_when_it_is_closed(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    fill(1)
    made = batches(ledger, airflow)
    made.step()
    stayer = stays(ledger, fake_airflow)
    made.step()
    assert metrics.STAYING_RUNS.labels(NOTE)._value.get() == 1
    fill(3)
    before = metrics.ROWS_TAKEN.labels(NOTE)._value.get()
    for item in ledger.take_more(stayer, 10, 60) or ():
        ledger.written(ledger.inferred(item, Inference({"drafts": []}, {})), Written((), 0, 0))
    ledger.leave(stayer)
    made.step()
    assert metrics.ROWS_TAKEN.labels(NOTE)._value.get() - before == 3
