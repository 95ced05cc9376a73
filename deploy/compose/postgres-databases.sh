#!/bin/bash
# The two databases and their owners, made by the postgres image at its first start. Checked by `bash -n` only.
set -euo pipefail
psql --username postgres --set=ON_ERROR_STOP=1 \
    --set=careloom="$CARELOOM_DB_PASSWORD" --set=airflow="$AIRFLOW_DB_PASSWORD" <<'SQL'
CREATE ROLE careloom LOGIN PASSWORD :'careloom';
CREATE DATABASE careloom OWNER careloom;
CREATE ROLE airflow LOGIN PASSWORD :'airflow';
CREATE DATABASE airflow OWNER airflow;
SQL
