#!/bin/sh
# Airflow's API server with its password file where it may be written: `airflow-api-server FILE-AS-MOUNTED`.
#
# Its simple auth manager opens that file for writing at the start and at every login, even with nothing to write, and
# ends with OSError where it cannot: secrets are mounted read-only. So they are copied, for this user's eyes alone,
# again at every start, so that a changed password holds after a restart.
#
# Run here: this script with Airflow's own auth manager after it, by tests/deploy; never in a container.
set -eu
mounted=${1:?the password file as it is mounted}
copy=${AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE:?where Airflow is to find its password file}
install -d -m 0700 "$(dirname "$copy")"
install -m 0600 "$mounted" "$copy"
exec airflow api-server
