"""What the dispatcher counts itself."""

from __future__ import annotations

from monitoring.metrics.declaring import BATCH_BUCKETS, REQUEST_BUCKETS, counter, gauge, histogram

RECORDS_CONSUMED = counter(
    "dispatcher",
    "careloom_dispatcher_records_total",
    "Kafka records consumed since the start, by what they were.",
    "outcome",
)
CONSUMER_LAG = gauge(
    "dispatcher",
    "careloom_dispatcher_consumer_lag_records",
    "Records in Kafka that are not in the ledger yet.",
    "partition",
)
INTAKE_MOVED = gauge(
    "dispatcher",
    "careloom_dispatcher_intake_last_step_timestamp_seconds",
    "When reading Kafka into the ledger last went a step on, or found that it cannot (Unix time).",
)
READING_HELD_BACK = gauge(
    "dispatcher",
    "careloom_dispatcher_reading_held_back",
    "1 while Kafka is not read because too much waits in the ledger, else 0.",
)
BROKER_REWINDS = counter(
    "dispatcher",
    "careloom_dispatcher_broker_rewinds_total",
    "Times that a partition ended before the ledger's offset: the broker lost data or the topic was made anew.",
)
DEAD_LETTER_COPIES = counter(
    "dispatcher",
    "careloom_dispatcher_dead_letter_copies_total",
    "Copies of records that are no events, by whether the dead-letter topic took them.",
    "outcome",
)
BATCH_SIZE = histogram(
    "dispatcher",
    "careloom_dispatcher_batch_items",
    "Pieces of work given to one Airflow run.",
    BATCH_BUCKETS,
    "scenario",
)
AIRFLOW_POST_DURATION = histogram(
    "dispatcher",
    "careloom_dispatcher_airflow_post_duration_seconds",
    "One POST of a run to Airflow's REST API.",
    REQUEST_BUCKETS,
    "outcome",
)
AIRFLOW_ERRORS = counter(
    "dispatcher", "careloom_dispatcher_airflow_errors_total", "Requests to Airflow's REST API that failed.", "outcome"
)
OPEN_RUNS = gauge(
    "dispatcher", "careloom_dispatcher_open_runs", "Airflow runs with unfinished work, by the ledger.", "scenario"
)
STAYING_RUNS = gauge(
    "dispatcher",
    "careloom_dispatcher_staying_runs",
    "Airflow runs that stay after their own rows and take further ones at once.",
    "scenario",
)
ROWS_TAKEN = counter(
    "dispatcher",
    "careloom_dispatcher_rows_taken_total",
    "Pieces of work that runs took while they stayed, counted when the run is closed.",
    "scenario",
)
SCENARIO_PAUSED = gauge(
    "dispatcher",
    "careloom_dispatcher_scenario_paused",
    "1 while the scenario's DAG is paused in Airflow, else 0.",
    "scenario",
)
SCENARIO_NOT_INSTALLED = gauge(
    "dispatcher",
    "careloom_dispatcher_scenario_not_installed",
    "1 while work waits for a scenario that is not installed or has no DAG in Airflow, else 0.",
    "scenario",
)
