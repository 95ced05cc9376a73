"""A warm worker forks tasks as Airflow does: isolated, watched, logged, and with everything imported beforehand."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.least_config import write_least_config

PROJECT = Path(__file__).parents[2]
DAGS = PROJECT / "dags"
SECRET = "correct-horse-battery-staple"

_TASKS = f"""
import ctypes, logging, os, signal, time
from datetime import timedelta
from types import SimpleNamespace
from airflow.sdk import DAG, task
from airflow.sdk.log import mask_secret
from pipelines.runner import carry as runner

log = logging.getLogger("crash")

def leave_traces():
    runner.left_behind = "a patient's name"
    os.environ["LEFT_BEHIND"] = "a patient's name"
    log.info("traces are left")

def look_for_traces():
    if hasattr(runner, "left_behind") or "LEFT_BEHIND" in os.environ:
        raise RuntimeError("another task's state is here")

def segfault():
    import scenario_dags  # what careloom's own tasks are called by

    scenario_dags._do(lambda run_id: ctypes.string_at(0), {{"dag_run": SimpleNamespace(run_id="r")}})

def tell_a_secret():
    mask_secret({SECRET!r})
    log.info("the password is {SECRET}")

TASKS = {{
    "leave_traces": leave_traces,
    "look_for_traces": look_for_traces,
    "tell_a_secret": tell_a_secret,
    "exit_at_once": lambda: os._exit(9),
    "kill_itself": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": segfault,
    "sleep_too_long": lambda: time.sleep(60),
    "sleep_a_while": lambda: time.sleep(2.5),
    "go_on": lambda: None,
}}

with DAG("crash", schedule=None):
    for name, work in TASKS.items():
        task(task_id=name, execution_timeout=timedelta(seconds=4))(work)()
"""

#: A worker: one process that supervises one task after the other, as executors do, against an API that says yes.
_WORKER = """
import json, os, sys, threading, uuid
import httpx
from airflow.sdk.api import client as api
from airflow.sdk.api.datamodels._generated import BundleInfo, TaskInstance
from airflow.sdk.execution_time.supervisor import supervise_task
import psutil

then = "2026-11-22T08:00:00Z"
run = {"dag_id": "crash", "run_id": "r", "logical_date": None, "data_interval_start": None, "data_interval_end": None,
       "run_after": then, "start_date": then, "end_date": None, "run_type": "manual", "state": "running",
       "consumed_asset_events": [], "partition_key": None}
asked = []
def answer(request):
    path = request.url.path.rsplit("/", 1)[-1]
    asked.append((path, json.loads(request.content or b"{}")))
    return httpx.Response(200, json={"dag_run": run, "max_tries": 0} if path == "run" else {})
api.noop_handler = answer

told = {}
for task_id in sys.argv[1:]:
    del asked[:]
    ti = TaskInstance(id=uuid.uuid4(), task_id=task_id, dag_id="crash", run_id="r", try_number=1,
                      dag_version_id=uuid.uuid4(), queue="default")
    code = supervise_task(ti=ti, bundle_info=BundleInfo(name="dags-folder"), dag_rel_path="crash_dags.py", token="",
                          client=api.Client(base_url="", token="", dry_run=True), log_path=f"{task_id}.log")
    told[task_id] = {"code": code, "asked": [[path, body.get("state")] for path, body in asked]}
me = psutil.Process()
print(json.dumps({
    "tasks": told, "threads": threading.active_count(), "children": len(me.children()),
    "connections": len(me.net_connections()), "modules": sorted(sys.modules),
}))
"""

_ORDER = (
    *("leave_traces", "look_for_traces", "exit_at_once", "kill_itself", "segfault", "sleep_too_long", "sleep_a_while"),
    *("tell_a_secret", "go_on"),
)


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Mapping[str, Any], Path]]:
    """What one warm worker told after all those tasks, and the folder of their logs."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / "dags").mkdir()
    (folder / "dags" / "crash_dags.py").write_text(_TASKS)
    write_least_config(folder)
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(folder / "none"),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(folder / "logs"),
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__SDK__COORDINATORS": json.dumps({"warm": {"classpath": "warm_workers.WarmCoordinator"}}),
        "AIRFLOW__SDK__QUEUE_TO_COORDINATOR": json.dumps({"default": "warm"}),
        "CARELOOM_CONFIG": str(folder / "careloom.toml"),
        "PYTHONPATH": str(DAGS),
        "PYTHONFAULTHANDLER": "",
    }
    command = [sys.executable, "-c", _WORKER, *_ORDER]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            out, err = run.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            for process in (*psutil.Process(run.pid).children(recursive=True), run):  # a task is in a group of its own
                process.kill()
            raise
    assert run.returncode == 0, err[-3000:]
    yield json.loads(out.splitlines()[-1]), folder / "logs"


def ended(worker: tuple[Mapping[str, Any], Path], task: str) -> str | None:
    """The state that Airflow was told last."""
    states = [state for _, state in worker[0]["tasks"][task]["asked"] if state]
    return states[-1] if states else None


def test_a_task_succeeds(worker: tuple[Mapping[str, Any], Path]) -> None:
    assert worker[0]["tasks"]["leave_traces"]["code"] == 0
    assert ended(worker, "leave_traces") == "success"


def test_a_task_finds_nothing_of_the_one_before(worker: tuple[Mapping[str, Any], Path]) -> None:
    assert ended(worker, "look_for_traces") == "success"


@pytest.mark.parametrize(("task", "code"), [("exit_at_once", 9), ("kill_itself", -9), ("segfault", -11)])
def test_a_crash_ends_its_own_task_only(worker: tuple[Mapping[str, Any], Path], task: str, code: int) -> None:
    assert worker[0]["tasks"][task]["code"] == code
    assert ended(worker, task) == "failed"
    assert ended(worker, "go_on") == "success"


def test_a_task_that_takes_too_long_is_ended(worker: tuple[Mapping[str, Any], Path]) -> None:
    assert ended(worker, "sleep_too_long") == "failed"
    assert "AirflowTaskTimeout" in (worker[1] / "sleep_too_long.log").read_text()


def test_a_running_task_sends_heartbeats(worker: tuple[Mapping[str, Any], Path]) -> None:
    asked = [path for path, _ in worker[0]["tasks"]["sleep_a_while"]["asked"]]
    assert asked.count("heartbeat") >= 1
    assert ended(worker, "sleep_a_while") == "success"


def test_what_a_task_logs_is_in_its_log_and_secrets_are_masked(worker: tuple[Mapping[str, Any], Path]) -> None:
    log = (worker[1] / "tell_a_secret.log").read_text()
    assert "the password is ***" in log
    assert SECRET not in log


def test_the_worker_keeps_no_thread_no_child_and_no_connection(worker: tuple[Mapping[str, Any], Path]) -> None:
    told = worker[0]
    assert (told["threads"], told["children"], told["connections"]) == (1, 0, 0)


def test_every_module_that_a_task_may_import_is_there_before_it_begins(worker: tuple[Mapping[str, Any], Path]) -> None:
    needed = reachable("pipelines.runner.carry")
    own = {"pipelines.runner.inference", "pipelines.runner.write_back", "pipelines.kafka.payloads"}
    assert own | {"kafka", "psycopg"} <= needed
    assert needed - set(worker[0]["modules"]) == set()


def reachable(root: str) -> set[str]:
    """First-party modules that `root` may import, in functions as well, and the others that those name directly."""
    ours, seen, queue = ("pipelines", "plugins", "fhir_adapters", "monitoring"), set[str](), [root]
    while queue:
        name = queue.pop()
        if name in seen:
            continue
        seen.add(name)
        if name.partition(".")[0] in ours:
            queue += [found for found in _imports(name) if found not in _NEVER_IN_A_TASK]
    return seen | {"psycopg"}


#: Imported in functions that no task of this worker calls: migrations, and spans, for which no endpoint is configured.
_NEVER_IN_A_TASK = ("alembic", "alembic.config", "pipelines.telemetry.tracing_otel")


def _imports(name: str) -> Iterator[str]:
    spec = importlib.util.find_spec(name)
    assert spec is not None, name
    assert spec.origin is not None, name
    tree = ast.parse(Path(spec.origin).read_text("utf-8"))
    hidden = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level and node.module != "__future__":
            yield node.module
            for alias in node.names:  # `from package import module`
                full = f"{node.module}.{alias.name}"
                if node.module.partition(".")[0] in ("pipelines", "plugins", "fhir_adapters") and _is_module(full):
                    yield full


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
