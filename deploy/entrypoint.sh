#!/bin/sh
# What the official Airflow image has as /entrypoint, as far as the chart calls it: its probes for schedulers, the DAG
# processor, workers and triggerers are `exec /entrypoint airflow jobs check ...` or `... python -m celery ...`. A probe
# that finds no such file fails, and its container is killed again and again.
#
# Run here: this script with the chart's probe commands, by tests/deploy; never in a container.
exec "$@"
