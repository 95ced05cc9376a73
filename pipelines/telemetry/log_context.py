"""What the running task works on, for every line that it logs: ids and names from closed sets, nothing of a patient."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from fhir_adapters import trace_context

_log = logging.getLogger(__name__)

_about: ContextVar[Mapping[str, str]] = ContextVar("careloom_log_context")


def about() -> Mapping[str, str]:
    """The fields that a line of the running task has: event_id, scenario, run_id, work, trace_id, as far as known."""
    fields = _about.get({})
    context = trace_context.current.get()
    return fields if context is None else {**fields, "trace_id": context.trace_id}


def work_on(fields: Mapping[str, str]) -> None:
    """The running task works on this from now on: its lines say so, and those that Airflow writes of it."""
    _about.set(fields)
    if (structlog := sys.modules.get("structlog")) is not None:  # in an Airflow task, whose log is written by it
        structlog.contextvars.bind_contextvars(**about())


def hush(loop: asyncio.AbstractEventLoop) -> None:
    """Have a loop tell of errors that nobody awaited by class alone: asyncio prints them with all that they say."""

    def told(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        _log.error("an error reached nobody: %s", type(error).__name__ if error else "asyncio told no exception")

    loop.set_exception_handler(told)
