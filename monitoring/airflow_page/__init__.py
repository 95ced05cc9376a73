"""The careloom page in Airflow's UI: what waits and why, dead letters, switches; see docs/airflow-page.md."""
