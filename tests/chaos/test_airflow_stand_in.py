"""The chaos suite's stand-in for Airflow, held to the contract that `tests/dispatcher/test_on_airflow.py` holds Airflow
itself to: the same questions, the same answers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Airflow
from pipelines.dispatcher.airflow_api import AirflowApi, Triggered
from pipelines.errors import AirflowError, AirflowUnavailable

DAG = "in_visit.probe"


class FakeZygote:
    """Runs nothing: the test says how each task ended."""

    def __init__(self) -> None:
        self.forked: list[Any] = []

    def fork(self, role: str, *, run: str, plan: str, env: Any, on_end: Any, on_stop: Any) -> Any:
        from forks import Child

        self.forked.append(Child(role, run, plan, on_end, on_stop))
        return self.forked[-1]

    def end(self, status: int) -> None:
        """The task that was started last ends."""
        child = self.forked[-1]
        child.status = status
        child.on_end(child)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    from airflow_stand_in import AirflowStandIn

    made = AirflowStandIn((DAG,))
    made.zygote = FakeZygote()
    yield made
    made.close()


@pytest.fixture
def api(stand_in: Any) -> Iterator[AirflowApi]:
    from airflow_stand_in import PASSWORD

    made = AirflowApi(Airflow.model_validate({"url": stand_in.url, "password": PASSWORD}), keep_dags=0.0)
    yield made
    made.close()


def until_forked(stand_in: Any, count: int) -> None:
    pause = threading.Event()
    for _ in range(500):
        if len(stand_in.zygote.forked) >= count:
            return
        pause.wait(0.01)
    raise AssertionError(f"only {len(stand_in.zygote.forked)} tasks were started, not {count}")


def test_dags_are_told_with_their_pauses(api: AirflowApi, stand_in: Any):
    assert api.dags() == {DAG: False}
    stand_in.paused[DAG] = True
    assert api.paused() == {DAG}


def test_a_run_that_is_asked_for_twice_is_there_once_and_runs_once(api: AirflowApi, stand_in: Any):
    assert api.run_state(DAG, "once") is None
    assert api.trigger(DAG, "once", {"items": 3}) is Triggered.CREATED
    assert api.trigger(DAG, "once", {"items": 3}) is Triggered.ALREADY_THERE
    assert [child.role for child in stand_in.zygote.forked] == ["carry"]


def test_a_run_is_running_until_its_task_ends(api: AirflowApi, stand_in: Any):
    api.trigger(DAG, "r")
    assert api.run_state(DAG, "r") == "running"
    stand_in.zygote.end(0)
    assert [child.role for child in stand_in.zygote.forked] == ["carry"]
    assert api.run_state(DAG, "r") == "success"


def test_a_task_that_lost_its_worker_is_tried_once_more_and_no_oftener(api: AirflowApi, stand_in: Any):
    api.trigger(DAG, "r")
    stand_in.zygote.end(-9)
    until_forked(stand_in, 2)
    stand_in.zygote.end(-9)
    assert [child.role for child in stand_in.zygote.forked] == ["carry", "carry"]
    assert api.run_state(DAG, "r") == "failed"


def test_a_task_in_which_everything_failed_is_not_tried_again(api: AirflowApi, stand_in: Any):
    from forks import ALL_FAILED

    api.trigger(DAG, "r")
    stand_in.zygote.end(ALL_FAILED)
    assert [child.role for child in stand_in.zygote.forked] == ["carry"]
    assert api.run_state(DAG, "r") == "failed"


def test_what_is_not_there_or_not_allowed_is_refused(api: AirflowApi, stand_in: Any):
    with pytest.raises(AirflowError, match="404") as caught:
        api.trigger("in_visit.nothing", "r")
    assert not isinstance(caught.value, AirflowUnavailable)
    wrong = AirflowApi(Airflow.model_validate({"url": stand_in.url, "password": "wrong"}))
    with pytest.raises(AirflowError, match=r"401.*airflow\.password"):
        wrong.dags()
    wrong.close()


def test_away_it_does_not_answer_and_knows_its_runs_when_it_is_back(api: AirflowApi, stand_in: Any):
    api.trigger(DAG, "r")
    stand_in.server.down()
    with pytest.raises(AirflowUnavailable):
        api.run_state(DAG, "r")
    stand_in.server.up()
    assert api.run_state(DAG, "r") == "running"
