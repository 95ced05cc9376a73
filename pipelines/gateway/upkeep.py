"""What the gateway does beside answering: stays connected, keeps its subscriptions, reconciles, notes event numbers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from fhir_adapters.errors import FhirServerError
from pipelines.config import Config, Source
from pipelines.failures.policy import Pace
from pipelines.gateway.event_numbers import EventNumbers
from pipelines.gateway.hospital import Hospital
from pipelines.gateway.log import place
from pipelines.gateway.reconcile import Reconciler
from pipelines.gateway.single_owner import SingleOwner
from pipelines.gateway.submission import Sink
from pipelines.kafka.topics import BrokerUnavailable, TopicUnusable

log = logging.getLogger(__name__)

SUBSCRIPTIONS_EVERY = 60.0
"""Seconds between looks at our subscriptions: a server may have put one in error or off while we were down."""
_RECONNECT_EVERY = 1.0
_BACKOFF = Pace(0.5, 30.0)


class Upkeep:
    """The background work of one gateway process.

    Args:
        config: all of it.
        types: resource types that are to be heard of: what scenarios wait for, and Task.
        producer: to be kept connected.
        hospitals: source -> its FHIR server.
        reconciler, numbers: whose loops run here.
        engine: of the ledger, for the lock that lets one gateway reconcile.
    """

    def __init__(
        self,
        config: Config,
        types: Sequence[str],
        producer: Sink,
        hospitals: Mapping[str, Hospital],
        reconciler: Reconciler,
        numbers: EventNumbers,
        engine: Engine,
    ) -> None:
        self._config = config
        self._types = tuple(sorted(types))
        self._producer = producer
        self._hospitals = hospitals
        self._reconciler = reconciler
        self._numbers = numbers
        self._engine = engine

    async def run(self) -> None:
        """All of it, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_always("kafka", self._stay_connected))
            group.create_task(_always("event-numbers", self._numbers.run))
            for source in self._config.sources:
                if source.name in self._hospitals:
                    group.create_task(self._tend(source))

    async def _tend(self, source: Source) -> None:
        """The mark first, then the subscriptions: what happens between the two is found by the first search."""
        await _until_done(f"start of source {source.name}", lambda: self._reconciler.begin(source.name))
        async with asyncio.TaskGroup() as group:
            group.create_task(_always(f"reconcile-{source.name}", lambda: self._reconcile(source.name)))
            if source.subscription != "none":
                group.create_task(_always(f"subscriptions-{source.name}", lambda: self._subscribe(source)))

    async def _stay_connected(self) -> None:
        while True:
            with contextlib.suppress(BrokerUnavailable, TopicUnusable):  # logged by the producer
                await self._producer.connect()
            await asyncio.sleep(_RECONNECT_EVERY)

    async def _reconcile(self, name: str) -> None:
        with SingleOwner(self._engine, f"reconcile.{name}") as owner:
            await self._reconciler.run(name, owner)
            await asyncio.Event().wait()  # a source that is never reconciled

    async def _subscribe(self, source: Source) -> None:
        await self._listening()
        while True:
            await _until_done(f"subscriptions at source {source.name}", lambda: self._ensure(source))
            await asyncio.sleep(SUBSCRIPTIONS_EVERY)

    async def _ensure(self, source: Source) -> None:
        endpoint = f"{self._config.gateway.url}/fhir/{source.name}"
        for each in await self._hospitals[source.name].subscribe(self._types, endpoint):
            if each.action != "kept":
                log.info("subscription of source %s to %s: %s", source.name, each.resource_type, each.action)

    async def _listening(self) -> None:
        """Wait until this process takes connections: servers send a handshake at once, and mind when it fails."""
        while True:
            try:
                _, writer = await asyncio.open_connection(self._config.gateway.host, self._config.gateway.port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def _until_done(what: str, attempt: Callable[[], Awaitable[None]]) -> None:
    """Try until it is done, with full jitter between the tries: the hospital or the ledger may be down for hours."""
    failures = 0
    while True:
        try:
            return await attempt()
        except (FhirServerError, SQLAlchemyError) as error:
            failures += 1
            reason = str(error) if isinstance(error, FhirServerError) else type(error).__name__
            log.warning("%s: not yet (%s)", what, reason)
        await asyncio.sleep(0.2 + _BACKOFF.wait(failures))


async def _always(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Keep a loop running: a fault in one of them must not end the others, nor the gateway."""
    while True:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 logged without its message, and begun again
            kind, where = place(error)
            log.error("%s: %s at %s; begun again", name, kind, where)  # noqa: TRY400 a traceback may quote a record
        await asyncio.sleep(5)
