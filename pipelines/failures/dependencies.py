"""What careloom depends on, by the names that breakers, metrics and operators know it by."""

from __future__ import annotations

KAFKA = "kafka"
AIRFLOW = "airflow"


def model_of(name: str) -> str:
    """The dependency that a model is."""
    return f"model:{name}"


def reading_of(source: str) -> str:
    """The dependency that reading from a source's FHIR server is."""
    return f"fhir:{source}"


def writing_of(source: str) -> str:
    """The dependency that writing to it is: a server that is read-only or full fails here alone."""
    return f"fhir-write:{source}"
