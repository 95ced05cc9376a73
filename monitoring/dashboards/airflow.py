"""Airflow: its own metrics, by StatsD (monitoring/statsd_mapping.yml)."""

from __future__ import annotations

from monitoring.dashboards.description import BOTH, Board, Panel, Row, grown, or_zero, quantile, rate

_DAG = 'dag_id=~"$scenario"'

BOARD = Board(
    "careloom-airflow",
    "careloom · Airflow",
    "Does Airflow live, do its tasks wait, where do they fail. DAGs are named after their scenarios.",
    (
        Row(
            "Components",
            (
                Panel(
                    "Heartbeats",
                    "Of scheduler, DAG processor and triggerer.",
                    "ops",
                    {
                        "scheduler": rate("airflow_scheduler_heartbeat_total"),
                        "DAG processor": rate("airflow_dag_processor_heartbeat_total"),
                        "triggerer": rate("airflow_triggerer_heartbeat_total"),
                    },
                    runbook="CareloomAirflowSchedulerDown",
                ),
                Panel(
                    "DAG files",
                    "That cannot be imported, and DAGs found.",
                    "short",
                    {
                        "import errors": "max(airflow_dag_processing_import_errors)",
                        "DAGs": "max(airflow_dagbag_size)",
                    },
                    runbook="CareloomAirflowImportErrors",
                ),
                Panel(
                    "Scheduler's round, 95 of 100",
                    "One round of the scheduler.",
                    "s",
                    {"round": quantile(0.95, "airflow_scheduler_scheduler_loop_duration_seconds")},
                    runbook="CareloomAirflowSchedulerDown",
                ),
            ),
        ),
        Row(
            "Tasks and runs",
            (
                Panel(
                    "Tasks that ended",
                    "By how.",
                    "ops",
                    {"{{dag_id}} {{state}}": rate("airflow_ti_finished_total", _DAG, "dag_id, state")},
                    airflow=True,
                    runbook="CareloomAirflowTasksLost",
                ),
                Panel(
                    "From a run to its code, 95 of 100",
                    "By the ledger, waits between tries included: Airflow 3.3 tells no queued time of tasks.",
                    "s",
                    {
                        "{{scenario}}": quantile(
                            0.95, "careloom_hop_duration_seconds", f'hop="started", {BOTH}', "scenario"
                        )
                    },
                    runbook="CareloomAirflowSlotsExhausted",
                    airflow=True,
                ),
                Panel(
                    "Task, 95 of 100",
                    "From start to end.",
                    "s",
                    {
                        "{{dag_id}} {{task_id}}": quantile(
                            0.95, "airflow_task_duration_seconds", _DAG, "dag_id, task_id"
                        )
                    },
                    airflow=True,
                    runbook="CareloomAirflowSlotsExhausted",
                ),
                Panel(
                    "Run, 95 of 100",
                    "Runs that succeeded.",
                    "s",
                    {"{{dag_id}}": quantile(0.95, "airflow_dagrun_duration_success_seconds", _DAG, "dag_id")},
                    airflow=True,
                    runbook="CareloomAirflowSlotsExhausted",
                ),
                Panel(
                    "Scheduled, 95 of 100",
                    "From scheduled to queued.",
                    "s",
                    {"{{dag_id}}": quantile(0.95, "airflow_task_scheduled_duration_seconds", _DAG, "dag_id")},
                    runbook="CareloomAirflowSchedulerDown",
                    airflow=True,
                ),
                Panel(
                    "Runs under way",
                    "Of all DAGs.",
                    "short",
                    {"runs": "max(airflow_scheduler_dagruns_running)"},
                    runbook="CareloomAirflowSlotsExhausted",
                ),
            ),
        ),
        Row(
            "Room",
            (
                Panel(
                    "Executor",
                    "Slots.",
                    "short",
                    {
                        "open": "max(airflow_executor_open_slots)",
                        "queued": "max(airflow_executor_queued_tasks)",
                        "running": "max(airflow_executor_running_tasks)",
                    },
                    runbook="CareloomAirflowSlotsExhausted",
                ),
                Panel(
                    "Pools",
                    "Slots that are free and that run, and tasks that wait for one.",
                    "short",
                    {
                        "{{pool_name}} free": "max by (pool_name) (airflow_pool_open_slots)",
                        "{{pool_name}} running": "max by (pool_name) (airflow_pool_running_slots)",
                        "{{pool_name}} starving": "max by (pool_name) (airflow_pool_starving_tasks)",
                    },
                    runbook="CareloomAirflowSlotsTaken",
                ),
                Panel(
                    "Lost",
                    "Tasks that died without a word, or with their scheduler.",
                    "short",
                    {
                        "no heartbeats": or_zero(grown("airflow_task_instances_without_heartbeats_killed_total")),
                        "killed from outside": or_zero(grown("airflow_scheduler_tasks_killed_externally_total")),
                        "of a dead scheduler": or_zero(grown("airflow_scheduler_orphaned_tasks_cleared_total")),
                    },
                    runbook="CareloomAirflowTasksLost",
                ),
            ),
        ),
    ),
)
