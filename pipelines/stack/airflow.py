"""Airflow's four components, each its own process: `airflow standalone` leaves workers behind when it is stopped.

Airflow is run as a command and never imported here. All of its configuration is in its environment; AIRFLOW_HOME holds
logs and the one password file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from pipelines.config import ENVIRONMENT_VARIABLE
from pipelines.stack.part import PROJECT, run_once
from pipelines.stack.postgres import make_database
from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept, write_private
from pipelines.stack.statsd import airflow_settings
from pipelines.stack.supervisor import Program

USER = "admin"
#: Running tasks at most; each is a process of its own, mostly waiting for the model.
PARALLELISM = 4
#: The pool that `dags/scenario_dags.py` puts its tasks into.
POOL = "careloom_model"


class Airflow:
    """API server, scheduler, DAG processor and triggerer on the embedded PostgreSQL.

    Args:
        kept: ports, secrets, folders.
        config: the `careloom.toml` that tasks read.
        dags: the DAG folder.
        changes: environment variables that replace or join those of `environment`.
        metrics: whether there is a statsd_exporter to send its own metrics to.
    """

    name = "airflow"
    needs = ("postgres",)

    def __init__(
        self,
        kept: Kept,
        config: Path,
        dags: Path = PROJECT / "dags",
        changes: Mapping[str, str] | None = None,
        *,
        metrics: bool = False,
    ) -> None:
        self._kept = kept
        self._config = config
        self._dags = dags
        self._changes = dict(changes or {})
        self._metrics = metrics
        self._home = kept.folder("airflow")
        self._passwords = self._home / "passwords.json"

    def prepare(self) -> None:
        """Write the password file and bring the metadata database to this Airflow's schema, once per version."""
        write_private(self._passwords, json.dumps({USER: self._kept.secrets["airflow-password"]}))
        (self._home / "no-plugins").mkdir(exist_ok=True)
        (self._home / "airflow.cfg").touch()  # else Airflow writes one, with secrets of its own in it
        migrated = self._home / f"migrated-{version('apache-airflow-core')}"
        if not migrated.exists():
            make_database(self._kept, "airflow")
            log = self._kept.folder("logs") / "airflow-db-migrate.log"
            env = {**os.environ, **self.environment()}
            run_once("airflow db migrate", (*_COMMAND, "db", "migrate"), log=log, env=env)
            pool = (POOL, str(PARALLELISM), "Runs that wait for the model server")
            run_once("airflow pools set", (*_COMMAND, "pools", "set", *pool), log=log, env=env)
            migrated.touch()

    def programs(self) -> Sequence[Program]:
        """The four components."""
        health = self._kept.url("airflow", "/api/v2/monitor/health")

        def component(name: str, *arguments: str, probe: Probe) -> Program:
            return Program(
                name=name,
                argv=(*_COMMAND, *arguments),
                env=self.environment(),
                probe=probe,
                cwd=self._home,
                patience=300,
                grace=5,  # the API server would wait for its clients, which are being stopped as well
            )

        def reported(what: str) -> Probe:
            return Probe("heartbeat", health, (what, f"latest_{what}_heartbeat"))

        return (
            component("api-server", "api-server", probe=Probe("http", health)),
            # --skip-serve-logs: the log server listens on every interface, and the API server reads the same files
            component("scheduler", "scheduler", "--skip-serve-logs", probe=reported("scheduler")),
            component("dag-processor", "dag-processor", probe=reported("dag_processor")),
            component("triggerer", "triggerer", "--skip-serve-logs", probe=reported("triggerer")),
        )

    def addresses(self) -> Mapping[str, str]:
        """The UI, and careloom's page in it."""
        return {
            f"Airflow (user {USER}, password in {self._passwords.name})": self._kept.url("airflow"),
            "careloom's page in Airflow": self._kept.url("airflow", "/plugin/careloom"),
        }

    def environment(self) -> Mapping[str, str]:
        """What every process of this Airflow is told, a Celery worker among them."""
        kept, url = self._kept, self._kept.url("airflow")
        settings = {
            "CORE__DAGS_FOLDER": str(self._dags),
            # Airflow runs every .py under its plugins folder; our package of that name is loaded by entry point
            "CORE__PLUGINS_FOLDER": str(self._home / "no-plugins"),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": str(PARALLELISM),
            "CORE__FERNET_KEY": kept.secrets["airflow-fernet-key"],
            "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
            # a password that is there already is neither generated nor printed into the log
            "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._passwords),
            "API__HOST": "127.0.0.1",
            "API__PORT": str(kept.ports["airflow"]),
            "API__BASE_URL": url,
            "API__WORKERS": "1",
            "API__SECRET_KEY": kept.secrets["airflow-api-secret"],
            "API__EXPOSE_CONFIG": "False",
            # one secret for all four: without it each makes its own and tasks are refused by the API
            "API_AUTH__JWT_SECRET": kept.secrets["airflow-jwt-secret"],
            "DATABASE__SQL_ALCHEMY_CONN": kept.database("airflow", "psycopg2"),
            "LOGGING__BASE_LOG_FOLDER": str(self._home / "logs"),
            "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": str(self._home / "logs" / "dag_processor"),
            "LOGGING__COLORED_CONSOLE_LOG": "False",
            # POST -> user code 0.78 s with the default of 1, and 0.26 s with 0.1 for 0.17 of a core; since runs stay,
            # only the first event after a while waits for the scheduler at all
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            # with the default of 5, 20-39 % of finished tasks hold their slot 5 s longer
            "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            # a task killed with its worker is tried again after this (default 300 s) ...
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            # ... and what a killed scheduler had queued is taken up: dead after 15 s, looked for every 10
            "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
            "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "DAG_PROCESSOR__HEALTH_CHECK_THRESHOLD": "15",
            # a new DAG file is seen within 10 s; a known one is parsed again every 60 s, not every 30
            "DAG_PROCESSOR__REFRESH_INTERVAL": "10",
            "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
            "DAG_PROCESSOR__PARSING_PROCESSES": "1",
            # tasks are forked from workers that have imported what a task needs: docs/decisions/008
            "SDK__COORDINATORS": json.dumps({"warm": {"classpath": "warm_workers.WarmCoordinator"}}),
            "SDK__QUEUE_TO_COORDINATOR": json.dumps({"default": "warm"}),
            "USAGE_DATA_COLLECTION__ENABLED": "False",
            **(airflow_settings(kept.ports["statsd-udp"]) if self._metrics else {}),
        }
        paths = (str(PROJECT / "dags"), *filter(None, (os.environ.get("PYTHONPATH"),)))
        own = {
            "AIRFLOW_HOME": str(self._home),
            ENVIRONMENT_VARIABLE: str(self._config),
            "PYTHONPATH": os.pathsep.join(paths),
        }
        return own | {f"AIRFLOW__{key}": value for key, value in settings.items()} | self._changes


_COMMAND = (sys.executable, "-m", "airflow")
