"""What a row's lines, requests and spans say of it while a task works on it."""

from __future__ import annotations

from fhir_adapters import trace_context
from pipelines.ledger.rows import WorkItem, trace_of_run
from pipelines.telemetry import log_context, tracing
from pipelines.telemetry.steps import begin


def works_on(item: WorkItem) -> None:
    """The running task works on this piece of work from now on: its lines, requests and spans say so."""
    trace_context.current.set(item.event.trace)
    begin()
    log_context.work_on(
        {
            "event_id": item.event.event_id,
            "scenario": item.scenario,
            "run_id": item.run_id,
            "work": str(item.id),
        }
    )


def carrying(item: WorkItem) -> tracing.Span:
    """The span of a row's way through a run, in its event's trace and with a link to the run's."""
    if not tracing.on():
        return tracing.NOTHING
    about: dict[str, tracing.Value] = {
        "careloom__event__id": item.event.event_id,
        "careloom__work__id": item.id,
        "careloom__run__id": item.run_id,
        "careloom__scenario__id": item.scenario,
        "careloom__scenario__version": item.scenario_version,
        "careloom__source": item.event.source,
        "careloom__attempt": item.tries + 1,
    }
    return tracing.span("carry", "consumer", about, links=(trace_of_run(item.run_id, tracing.share()),))
