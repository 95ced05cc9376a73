"""The DAG file, parsed by Airflow's own DagBag in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from plugins import manager

DAGS = Path(__file__).parents[2] / "dags"
BUILT_IN = set(manager.load().scenarios)

_PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
HEAVY = ("fhir.", "airflow.providers.", "kafka", "aiohttp", "sqlalchemy", "alembic")
before = set(sys.modules)
bag = DagBag(sys.argv[1], known_pools={"default_pool", "careloom_model"})
dags = {
    dag.dag_id: {
        "tags": sorted(dag.tags),
        "schedule": type(dag.timetable).__name__,
        "doc": dag.doc_md,
        "paused": dag.is_paused_upon_creation,
        "tasks": {
            t.task_id: {
                "pool": t.pool, "retries": t.retries, "xcom": t.do_xcom_push, "rule": t.trigger_rule,
                "down": sorted(t.downstream_task_ids), "weight": t.priority_weight,
            }
            for t in dag.tasks
        },
    }
    for dag in bag.dags.values()
}
print(json.dumps({
    "dags": dags,
    "errors": bag.import_errors,
    "warnings": [w.message for w in bag.dag_warnings],
    "seconds": sum(s.duration.total_seconds() for s in bag.dagbag_stats),
    "heavy": [m for m in set(sys.modules) - before if m.startswith(HEAVY)],
}))
"""


def run(program: str, environment: Mapping[str, str]) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", program, str(DAGS)], env=dict(environment), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def parsed(airflow_environment: Mapping[str, str]) -> Any:
    return run(_PARSE, airflow_environment)


def test_each_installed_scenario_has_a_dag_and_a_broken_plugin_takes_none_away(parsed: Any):
    print(f"parsed in {parsed['seconds']:.2f} s")
    assert parsed["errors"] == {}
    assert parsed["warnings"] == []
    assert set(parsed["dags"]) == BUILT_IN | {"pre_visit.fake"}
    for dag_id, dag in parsed["dags"].items():
        assert {"careloom", dag_id.split(".")[0]} < set(dag["tags"])
        assert any(tag.startswith("risk-") for tag in dag["tags"])
        assert dag["schedule"] == "NullTimetable"
        assert dag["paused"] is False
        assert dag["tasks"]["carry"] == {
            "pool": "careloom_model",
            "retries": 1,
            "xcom": False,
            "rule": "all_success",
            "down": [],
            "weight": {"in_visit": 3, "pre_visit": 2, "post_visit": 1}[dag_id.split(".")[0]],
        }
        assert len(dag["tasks"]) == 1
    assert parsed["heavy"] == []
    doc = parsed["dags"]["pre_visit.fake"]["doc"]
    assert "假 · A fake" in doc
    assert "`Appointment` `status` in `booked`, `arrived`: somebody comes" in doc
    assert "careloom switch off scenario pre_visit.fake" in doc


_CALL = """
import json, sys, types
from airflow.dag_processing.dagbag import DagBag
from pipelines.runner import carry as runner
bag = DagBag(sys.argv[1])
carry = bag.dags["pre_visit.fake"].get_task("carry")
context = {"dag_run": types.SimpleNamespace(run_id="r1")}
asked, told = [], []

def call(*, failed_all=False, error=None):
    def work(run_id):
        asked.append(run_id)
        if error is not None:
            try:
                raise KeyError("CANARY in a cause")
            except KeyError as cause:
                raise error from cause
        return types.SimpleNamespace(line="3 rows", failed_all=failed_all)
    runner.carry = work
    try:
        told.append(["returned", repr(carry.execute(context))])
    except BaseException as raised:
        behind = [raised.__cause__, raised.__context__]
        told.append([type(raised).__name__, str(raised), behind == [None, None]])

call()
call(failed_all=True)
call(error=ValueError("CANARY in a message"))
print(json.dumps({"asked": asked, "told": told}))
"""


def test_what_a_task_raises_says_nothing_that_an_error_said(airflow_environment: Mapping[str, str]):
    result = run(_CALL, airflow_environment)
    assert result["asked"] == ["r1"] * 3
    assert result["told"] == [
        ["returned", "None"],
        ["AirflowFailException", "everything failed: 3 rows", True],
        ["RuntimeError", "the run broke with ValueError; the ledger keeps what is unfinished", True],
    ]
