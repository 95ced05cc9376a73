"""Airflow itself, held to the contract that the stand-in keeps; and the time from a POST to a task's code, printed."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import Airflow, Config, load
from pipelines.dispatcher.airflow_api import AirflowApi, Triggered
from pipelines.errors import AirflowError, AirflowUnavailable
from pipelines.ledger import Ledger, engine
from pipelines.stack.environment import Stack
from plugins.manager import load as load_plugins

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

SCENARIO_DAGS = Path(__file__).parents[2] / "dags" / "scenario_dags.py"
SCENARIOS = set(load_plugins().scenarios)

_DAGS = """
import logging
import time
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from pipelines.telemetry.log_lines import be_discreet

class Note(BaseOperator):
    def execute(self, context):
        be_discreet()
        logging.getLogger("somebodys.plugin").error(f"odd name {{context['dag_run'].run_id[::-1]}}")
        with open({file!r}, "a") as out:
            out.write(f"{{context['dag_run'].run_id}} {{time.time()}}\\n")
        if "fail" in context["dag_run"].run_id:
            raise AirflowFailException("told to")

for name, paused in (("in_visit.probe", False), ("in_visit.paused", True)):
    with DAG(name, schedule=None, tags={{"careloom"}}, is_paused_upon_creation=paused) as dag:
        Note(task_id="note", do_xcom_push=False)
    globals()[name.replace(".", "_")] = dag
"""


def patiently(ask: Callable[[], Any]) -> Any:
    """What Airflow answers, or nothing yet: on a machine that is busy it may take longer than the client waits."""
    try:
        return ask()
    except AirflowUnavailable:
        return ()


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tasks write when they ran."""
    return tmp_path_factory.mktemp("noted") / "runs.txt"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, noted: Path) -> Iterator[Config]:
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "dags").mkdir()
    (folder / "dags" / "probe_dags.py").write_text(_DAGS.format(file=str(noted)))
    shutil.copy(SCENARIO_DAGS, folder / "dags")
    with Stack(folder / "state", broker="127.0.0.1:9", model="stand-in", dags=folder / "dags") as stack:
        stack.start(["ledger", "airflow"])
        yield load(stack.config)


@pytest.fixture(scope="module")
def config(whole: Config) -> Airflow:
    return whole.airflow


@pytest.fixture
def api(config: Airflow, until) -> Iterator[AirflowApi]:
    made = AirflowApi(config, keep_dags=0.0)
    until(lambda: len(patiently(made.dags)) == 2 + len(SCENARIOS), 120)
    yield made
    made.close()


def test_dags_are_told_with_their_pauses(api: AirflowApi):
    assert api.dags() == {"in_visit.probe": False, "in_visit.paused": True} | dict.fromkeys(SCENARIOS, False)
    assert api.paused() == {"in_visit.paused"}


def test_a_run_that_is_asked_for_twice_is_there_once_and_runs_once(api: AirflowApi, noted: Path, until):
    assert api.run_state("in_visit.probe", "once") is None
    assert api.trigger("in_visit.probe", "once", {"items": 3}) is Triggered.CREATED
    assert api.trigger("in_visit.probe", "once", {"items": 3}) is Triggered.ALREADY_THERE
    until(lambda: patiently(lambda: api.run_state("in_visit.probe", "once")) == "success", 120)
    assert api.trigger("in_visit.probe", "once", {"items": 3}) is Triggered.ALREADY_THERE
    assert sum(line.startswith("once ") for line in noted.read_text().splitlines()) == 1


def test_what_a_plugin_writes_in_one_piece_is_not_in_airflows_log(api: AirflowApi, whole: Config, until):
    api.trigger("in_visit.probe", "logged")
    until(lambda: patiently(lambda: api.run_state("in_visit.probe", "logged")) == "success", 120)
    logs = [file.read_text("utf-8", "replace") for file in whole.state_dir.rglob("run_id=logged/**/*.log")]
    assert any("somebodys.plugin" in log and "text left out" in log for log in logs)
    assert not any("deggol" in log for log in logs)


def test_a_scenarios_tasks_run_through_when_nothing_is_left_to_do(api: AirflowApi, until):
    api.trigger("post_visit.follow_up", "of-no-rows")
    until(lambda: patiently(lambda: api.run_state("post_visit.follow_up", "of-no-rows")) in ("success", "failed"), 120)
    assert api.run_state("post_visit.follow_up", "of-no-rows") == "success"


def test_a_standing_run_is_a_running_task_without_rows_until_it_is_told_to_go(api: AirflowApi, whole: Config, until):
    made = engine(whole.ledger.url.get_secret_value())
    try:
        ledger = Ledger(made)
        run = ledger.stand("in_visit.icu_watch")
        assert run is not None
        api.trigger(run.scenario, run.run_id)
        until(lambda: [one.staying for one in ledger.open_runs()] == [True], 120)
        assert api.run_state(run.scenario, run.run_id) == "running"
        time.sleep(7)  # longer than the word that it begins with counts
        assert [(one.run_id, one.staying) for one in ledger.open_runs()] == [(run.run_id, True)]
        ledger.withdraw()
        until(lambda: patiently(lambda: api.run_state(run.scenario, run.run_id)) == "success", 120)
        assert [closed.run_id for closed in ledger.close_finished_runs()] == [run.run_id]
    finally:
        made.dispose()


def test_a_run_that_failed_is_told(api: AirflowApi, until):
    api.trigger("in_visit.probe", "fail")
    until(lambda: patiently(lambda: api.run_state("in_visit.probe", "fail")) == "failed", 120)


def test_a_run_of_a_paused_dag_is_taken_and_stays_queued(api: AirflowApi):
    assert api.trigger("in_visit.paused", "waits") is Triggered.CREATED
    assert api.run_state("in_visit.paused", "waits") == "queued"


def test_what_is_not_there_or_not_allowed_is_refused(api: AirflowApi, config: Airflow):
    with pytest.raises(AirflowError, match="404") as caught:
        api.trigger("in_visit.nothing", "r")
    assert not isinstance(caught.value, AirflowUnavailable)
    wrong = AirflowApi(Airflow.model_validate({"url": config.url, "password": "wrong"}))
    with pytest.raises(AirflowError, match=r"401.*airflow\.password"):
        wrong.dags()
    wrong.close()


def test_how_long_a_run_takes_to_reach_its_code_is_printed(api: AirflowApi, noted: Path, until):
    taken, posts = [], []
    for number in range(10):
        began = time.time()
        api.trigger("in_visit.probe", f"timed-{number}")
        posts.append(time.time() - began)
        until(lambda n=number: f"timed-{n} " in noted.read_text(), 120)
        line = next(one for one in noted.read_text().splitlines() if one.startswith(f"timed-{number} "))
        taken.append(float(line.split()[1]) - began)
    post, code = statistics.median(posts), statistics.median(taken)
    print(f"POST p50 {post:.3f} s; POST -> code p50 {code:.2f} s, longest {max(taken):.2f} s")
    assert len(taken) == 10
