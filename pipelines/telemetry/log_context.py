"""What the running task works on, for every line that it logs: ids and names from closed sets, nothing of a patient."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from fhir_adapters import trace_context
from pipelines.ledger.rows import WorkItem, trace_of_run
from pipelines.telemetry import tracing
from pipelines.telemetry.steps import begin

_log = logging.getLogger(__name__)

_about: ContextVar[Mapping[str, str]] = ContextVar("careloom_log_context")


def about() -> Mapping[str, str]:
    """The fields that a line of the running task has: event_id, scenario, run_id, work, trace_id, as far as known."""
    fields = _about.get({})
    context = trace_context.current.get()
    return fields if context is None else {**fields, "trace_id": context.trace_id}


def works_on(item: WorkItem) -> None:
    """The running task works on this piece of work from now on: its lines, requests and spans say so."""
    trace_context.current.set(item.event.trace)
    begin()
    fields = {
        "event_id": item.event.event_id,
        "scenario": item.scenario,
        "run_id": item.run_id,
        "work": str(item.id),
    }
    _about.set(fields)
    if (structlog := sys.modules.get("structlog")) is not None:  # in an Airflow task, whose log is written by it
        structlog.contextvars.bind_contextvars(**about())


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


def hush(loop: asyncio.AbstractEventLoop) -> None:
    """Have a loop tell of errors that nobody awaited by class alone: asyncio prints them with all that they say."""

    def told(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        _log.error("an error reached nobody: %s", type(error).__name__ if error else "asyncio told no exception")

    loop.set_exception_handler(told)
