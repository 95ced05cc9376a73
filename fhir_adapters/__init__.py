"""What speaks to hospital systems: one standard, one file; nothing here knows Kafka, Airflow or models."""
