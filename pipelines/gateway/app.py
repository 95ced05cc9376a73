"""The gateway as an ASGI application: puts its parts together and ends them in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.types import ASGIApp

from fhir_adapters.wire import Limits
from monitoring.metrics import expect_sources
from pipelines.config import Config
from pipelines.gateway.authentication import Doorkeeper
from pipelines.gateway.endpoints import BODY_TIMEOUT, Endpoints, method_not_allowed, nothing_here
from pipelines.gateway.event_numbers import EventNumbers
from pipelines.gateway.health import Health
from pipelines.gateway.hospital import Hospital, hospitals
from pipelines.gateway.reception import Reception
from pipelines.gateway.reconcile import Reconciler
from pipelines.gateway.submission import Sink, Submission
from pipelines.gateway.upkeep import Upkeep
from pipelines.kafka.producer import Producer
from pipelines.ledger import Ledger, engine
from pipelines.telemetry.log_context import hush


def create_app(
    config: Config,
    types: Sequence[str],
    *,
    producer: Sink | None = None,
    ledger_engine: Engine | None = None,
    servers: Mapping[str, Hospital] | None = None,
    body_timeout: float = BODY_TIMEOUT,
    upkeep: bool = True,
) -> ASGIApp:
    """The gateway.

    Args:
        config: all of it; the sources' tokens are kept as digests.
        types: resource types that scenarios wait for, and Task: what is subscribed to and searched for.
        producer: the way into Kafka; made from `config` when None.
        ledger_engine: made from `config` when None.
        servers: source -> its FHIR server; made from `config` when None.
        body_timeout: seconds that a sender has for its body.
        upkeep: whether to stay connected, keep subscriptions and reconcile in the background.
    """
    limits = Limits(max_body_bytes=config.gateway.max_body_bytes, max_depth=config.gateway.max_depth)
    kafka = producer or Producer(config)
    database = ledger_engine or engine(config.ledger.url.get_secret_value())
    servers = servers if servers is not None else hospitals(config, limits)
    ledger = Ledger(database)
    submission = Submission(config, kafka)
    reconciler = Reconciler(config.sources, servers, types, ledger, submission)
    numbers = EventNumbers(ledger, reconciler.search_soon)
    endpoints = Endpoints(
        Doorkeeper(config.sources),
        Reception(limits, submission, servers, reconciler, numbers),
        Health(kafka, ledger),
        max_body_bytes=config.gateway.max_body_bytes,
        body_timeout=body_timeout,
    )
    work = Upkeep(config, types, kafka, servers, reconciler, numbers, database)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        hush(asyncio.get_running_loop())
        expect_sources(source.name for source in config.sources)
        background = asyncio.create_task(work.run() if upkeep else numbers.run())
        try:
            yield
        finally:
            background.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await background
            await kafka.close()
            for server in servers.values():
                await server.aclose()
            database.dispose()

    others = Starlette(
        routes=endpoints.routes(),
        lifespan=lifespan,
        exception_handlers={404: nothing_here, 405: method_not_allowed},
    )
    return endpoints.before(others)
