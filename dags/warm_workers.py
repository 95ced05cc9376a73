"""WarmCoordinator: Airflow's own fork per task, from a worker that has already imported what a careloom task needs.

Airflow's supervisor does everything that it does without this: a process and a process group per task, heartbeats,
time limits, the task's log, masking of secrets, what a crash becomes. Only the imports happen earlier, in the worker,
which runs no task code itself. It is chosen per queue, in the environment of the scheduler (LocalExecutor) or of the
Celery workers, with this folder on PYTHONPATH:

    AIRFLOW__SDK__COORDINATORS={"warm": {"classpath": "warm_workers.WarmCoordinator"}}
    AIRFLOW__SDK__QUEUE_TO_COORDINATOR={"default": "warm"}

A worker keeps the careloom that it began with: restart workers after an upgrade. Figures: docs/decisions/008.
"""

from __future__ import annotations

import gc
import importlib
import logging
from collections.abc import Sequence
from typing import Any

from airflow.sdk.execution_time.coordinator import BaseCoordinator

from pipelines.runner.warm import warm_up

log = logging.getLogger(__name__)

#: Of Airflow itself, what each of its task processes would import anew.
AIRFLOW_MODULES = (
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.dagbag",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.execution_time.timeout",
    "jinja2.ext",
)


class WarmCoordinator(BaseCoordinator):  # type: ignore[misc]  # Airflow is not type-checked here
    """Made by Airflow once in each worker, before its first task of a queue that is mapped to it.

    Args:
        modules: further modules to import, for DAGs of others on the same queue.
    """

    def __init__(self, modules: Sequence[str] = ()) -> None:
        for name in (*AIRFLOW_MODULES, *modules):
            importlib.import_module(name)
        warm_up()
        gc.collect()
        gc.freeze()  # else each child's first collection touches, and so copies, all of it

    def execute_task(
        self,
        *,
        what: Any,
        dag_rel_path: Any,
        bundle_info: Any,
        client: Any,
        logger: Any = None,
        sentry_integration: str = "",
        subprocess_logs_to_stdout: bool,
        **_: Any,
    ) -> Any:
        """Fork a process for the task and supervise it to its end, as Airflow does where no coordinator is set."""
        from airflow.sdk.execution_time.supervisor import ActivitySubprocess

        process = ActivitySubprocess.start(
            what=what,
            dag_rel_path=dag_rel_path,
            bundle_info=bundle_info,
            client=client,
            logger=logger,
            sentry_integration=sentry_integration,
            subprocess_logs_to_stdout=subprocess_logs_to_stdout,
        )
        exit_code = process.wait()
        return self.ExecutionResult(exit_code, process.final_state)
