"""What a careloom task needs in memory, imported once by the worker that forks tasks and not again by every task.

Imports only: no connection, no thread and nothing of a patient comes to be in the process that calls this, so that
whatever it forks afterwards starts as clean as one that it forked before.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence

from fhir_adapters.fhir_models import fields_of, model_of
from pipelines.config import load
from pipelines.errors import CareloomError

log = logging.getLogger(__name__)

#: Roots of what `pipelines.runner.carry` imports in its functions, and what libraries import at their first use.
MODULES = (
    "anyio._backends._asyncio",
    "fhir_adapters.fhir_client",
    "kafka",
    "kafka.errors",
    "pipelines.runner.inference",
    "pipelines.ledger",
    "pipelines.telemetry.log_lines",
    "pipelines.models.openai_chat",
    "pipelines.kafka.payloads",
    "pipelines.runner.carry",
    "pipelines.runner.sources",
    "pipelines.runner.staying",
    "pipelines.runner.write_back",
    "psycopg",
    "sqlalchemy.dialects.postgresql.psycopg",
    "uvloop",
)
#: What drafts are made of; fhir.resources imports a type's model when it is first asked for.
DRAFT_TYPES = (
    "CarePlan",
    "Communication",
    "Composition",
    "Device",
    "DocumentReference",
    "Flag",
    "Provenance",
    "RiskAssessment",
    "ServiceRequest",
    "Task",
)


def warm_up(modules: Sequence[str] = MODULES) -> tuple[str, ...]:
    """Import `modules`, the models of draft types, and the scenarios that the configuration enables.

    What cannot be imported is logged by name and left to the task, which says in its own log what is wrong.

    Returns:
        the modules that could not be imported, and "plugins" where the configuration or a plugin cannot be read.
    """
    failed = [name for name in (*modules, *_wanted_for_spans()) if not _imported(name)]
    for resource_type in DRAFT_TYPES:
        fields_of(model_of(resource_type, "R4"))
    _guards_read()
    if not _plugins_loaded():
        failed.append("plugins")
    return tuple(failed)


def _wanted_for_spans() -> tuple[str, ...]:
    """OpenTelemetry, where the configuration names an endpoint; a wrong configuration is told with the plugins."""
    try:
        return () if load().tracing.endpoint is None else ("pipelines.telemetry.tracing_otel",)
    except CareloomError:
        return ()


def _guards_read() -> None:
    """The built-in guards read their tables, and compile them, at the first text that they see."""
    from plugins.guards import drug_names, injection, unsafe_advice

    drug_names.drugs("")
    injection.orders("")
    unsafe_advice.rules()


def _imported(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception as error:  # noqa: BLE001  a worker must come up whatever one module of it does
        log.warning("%s is not warm: %s", name, type(error).__name__)
        return False
    return True


def _plugins_loaded() -> bool:
    from plugins import manager

    try:
        settings = load().plugins
        loaded = manager.load(settings.enabled, settings.disabled_scenarios)
    except CareloomError as error:
        log.warning("the scenarios are not warm: %s", type(error).__name__)
        return False
    for plugin, reason in loaded.refused:
        log.warning("plugin %s is refused: %s", plugin, reason)
    return True
