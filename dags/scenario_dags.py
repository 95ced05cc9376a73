"""One DAG per installed scenario, with one task: `carry`. Airflow sees ids and counts, never a patient's data.

A run is asked for by the dispatcher, whose ledger has bound rows to its run id; the task takes them from there. What
goes wrong with single rows is settled in the ledger. The task fails only when everything in its run did, so that an
operator sees it, or with the class of an error that should not have been; texts of errors may quote a record and stay
out of Airflow's logs and database.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, BaseOperator, get_parsing_context
from airflow.sdk.exceptions import AirflowFailException

from pipelines import config
from plugins import manager
from plugins.scenario import Scenario, Stage

log = logging.getLogger(__name__)

#: Slots for runs that wait for the model; made by `careloom up`, or `airflow pools set careloom_model 4 model`.
POOL = "careloom_model"
#: Who waits for it: a clinician at the bedside before one who prepares, and before what can be done tonight.
_PRIORITY = {Stage.IN_VISIT: 3, Stage.PRE_VISIT: 2, Stage.POST_VISIT: 1}

_TASKS: dict[str, Any] = {
    # one more try where the worker was lost; what is lost again the dispatcher gives to another run, in smaller company
    "retries": 1,
    "retry_delay": timedelta(seconds=1),
    "do_xcom_push": False,
    "execution_timeout": timedelta(minutes=30),
    "owner": "careloom",
}


class Carry(BaseOperator):  # type: ignore[misc]  # Airflow is not type-checked here
    """Ask rules and model about each event of the run, and write the drafts to the FHIR server."""

    def execute(self, context: Any) -> None:
        """Called by Airflow in the task's own process."""
        from pipelines.runner import carry as runner

        _do(runner.carry, context)

    def on_kill(self) -> None:
        """Called by Airflow's handler of SIGTERM, in the task's own process: a run that stays leaves."""
        from pipelines.runner import carry as runner

        runner.leave()


def scenario_dag(scenario: Scenario[Any], *, max_active_runs: int) -> DAG:
    """The DAG of one scenario.

    Args:
        scenario: as its plugin brought it.
        max_active_runs: runs at a time; the dispatcher keeps its own, lower limit.
    """
    with DAG(
        dag_id=scenario.id,
        dag_display_name=f"{scenario.title.zh} · {scenario.title.en}",
        description=scenario.title.en,
        doc_md=_doc(scenario),
        tags={"careloom", scenario.stage.value, f"risk-{scenario.risk.value}"},
        schedule=None,
        catchup=False,
        max_active_runs=max_active_runs,
        is_paused_upon_creation=False,
        default_args={**_TASKS, "priority_weight": _PRIORITY[scenario.stage]},
    ) as dag:
        Carry(task_id="carry", pool=POOL)
    return dag


def _do(work: Callable[[str], Any], context: Any) -> None:
    """Work for this Airflow run.

    Raises:
        AirflowFailException: everything in the run failed; names counts by class of error.
        RuntimeError: the work itself broke; names the class only, and has no cause that a log could print.
    """
    # Airflow 3.3.2 leaves a handler of its own behind when it has parsed a DAG file. Python runs it after the
    # instruction that faulted, which never ends: a task that should have crashed would spin and seem alive for ever.
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    broken, summary = None, None
    try:
        summary = work(context["dag_run"].run_id)
    except Exception as error:  # noqa: BLE001  converted: its text may hold a patient's data
        broken = type(error).__name__
    if broken or summary is None:
        raise RuntimeError(f"the run broke with {broken or 'no summary'}; the ledger keeps what is unfinished")
    log.info("%s", summary.line)
    if summary.failed_all:
        raise AirflowFailException(f"everything failed: {summary.line}")


def _doc(scenario: Scenario[Any]) -> str:
    """What an operator reads in the UI."""
    triggers = [
        f"- `{t.resource_type}`"
        + "".join(f" `{path}` in {', '.join(f'`{v}`' for v in values)}" for path, values in t.where.items())
        + (f" and `{t.fhirpath}`" if t.fhirpath else "")
        + (f": {t.why}" if t.why else "")
        for t in scenario.triggers
    ]
    record = [f"- `{q.name}`: {q.resource_type}, at most {q.cap}" for q in scenario.record]
    fields = ", ".join(f"`{name}`" for name in scenario.output_model.model_fields)
    return "\n".join(
        (
            f"# {scenario.title.zh} · {scenario.title.en}",
            f"Version {scenario.version} · prompt {scenario.prompt_version} · risk class {scenario.risk.value}"
            f" · autonomy: {scenario.autonomy.value} · objective: {scenario.deadline} from event to draft",
            "## What starts it",
            *triggers,
            "## What it reads",
            *(record or ["- nothing but the event"]),
            "## What the model answers",
            fields,
            "## How to stop it",
            "Pause this DAG, or `careloom switch off scenario "
            f"{scenario.id} --why ...`: events wait in the ledger and lose nothing.",
        )
    )


_config = config.load()
#: The process of a task needs its own DAG alone; whoever looks for DAGs needs all.
_wanted = get_parsing_context().dag_id
for _scenario in manager.load(_config.plugins.enabled, _config.plugins.disabled_scenarios).scenarios.values():
    if _wanted in (None, _scenario.id):
        globals()[_scenario.id.replace(".", "_")] = scenario_dag(
            _scenario, max_active_runs=2 * _config.dispatcher.max_open_runs
        )
