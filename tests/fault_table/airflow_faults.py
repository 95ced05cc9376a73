"""What is done to Airflow: its tasks, its DAGs, its slots."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil

from tests.fault_table.flow import EXAM
from tests.fault_table.house import House
from tests.fault_table.letter_faults import in_time, late

_BROKEN = "import nothing_that_is_installed  # noqa\n"
_CROWD = """\
import time

from airflow.sdk import dag, task


@dag(schedule="@once", catchup=False)
def another_teams():
    @task
    def wait(number):
        time.sleep(3600)

    wait.expand(number=list(range(12)))


another_teams()
"""


def kill_task(house: House, *, with_its_worker: bool = False) -> None:
    """kill -9 a task's process; with the executor's worker that looks after it, nobody is left to tell of it."""

    def killed() -> bool:
        own, *others = house.stack.pids("scheduler")
        for pid in filter(_runs_a_task, others):
            worker = psutil.Process(pid).ppid()
            if with_its_worker and worker != own:
                house.stack.kill("scheduler", worker)
            house.stack.kill("scheduler", pid)
            return True
        return False

    end = time.monotonic() + 120
    while not killed():
        if time.monotonic() > end:
            raise AssertionError("no task came to run, so that none could be killed")
        time.sleep(0.02)


def _runs_a_task(pid: int) -> bool:
    """Whether this is a worker of Airflow's with a task: it writes the task's id into its name."""
    try:
        return re.search(r"airflow worker -- [0-9a-f]{8}-", " ".join(psutil.Process(pid).cmdline())) is not None
    except psutil.Error:
        return False


def break_dag(house: House) -> None:
    (house.places.dags / "another_teams.py").write_text(f"# from airflow.sdk import DAG\n{_BROKEN}", "utf-8")


def mend_dag(house: House) -> None:
    (house.places.dags / "another_teams.py").unlink(missing_ok=True)


@contextmanager
def _airflow(house: House) -> Iterator[httpx.Client]:
    airflow = house.config.airflow
    with httpx.Client(base_url=airflow.url, timeout=30) as client:
        asked = {"username": airflow.username, "password": airflow.password.get_secret_value()}
        token = client.post("/auth/token", json=asked).raise_for_status().json()["access_token"]
        client.headers["authorization"] = f"Bearer {token}"
        yield client


def pause(house: House, *, paused: bool) -> None:
    with _airflow(house) as client:
        client.patch(f"/api/v2/dags/{EXAM}", json={"is_paused": paused}).raise_for_status()


def crowd(house: House) -> None:
    """Its tasks take every slot as it becomes free, and a ward's letters need one: no run of theirs stays."""
    (house.places.dags / "another_teams.py").write_text(_CROWD, "utf-8")
    waiting = 'airflow_pool_queued_slots{pool_name="default_pool"} > 0'
    if house.wait(lambda: bool(house.prometheus(waiting)), 60) is None:
        raise AssertionError("the other team's tasks did not take the slots")
    late("surgery", every=10, one_in=0)(house)


def disperse(house: House) -> None:
    in_time("surgery", 0)(house)
    if not (house.places.dags / "another_teams.py").exists():
        return
    with _airflow(house) as client:
        runs = client.get("/api/v2/dags/another_teams/dagRuns").raise_for_status().json()["dag_runs"]
        for run in runs:
            run_at = f"/api/v2/dags/another_teams/dagRuns/{run['dag_run_id']}"
            client.patch(run_at, json={"state": "failed"}).raise_for_status()
        client.patch("/api/v2/dags/another_teams", json={"is_paused": True}).raise_for_status()
    mend_dag(house)
