"""Events whose bytes Kafka no longer has: read again at the hospital's FHIR server, and sent to Kafka once more.

They go the gateway's own way (`Submission`), so that they are held to the same rules. The record that comes of it has
the event's own identity: the dispatcher counts it as a duplicate, and the ledger is told where the bytes are now.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from fhir_adapters.errors import FhirNotFound, FhirRejected, Refused
from fhir_adapters.event import ClinicalEvent
from fhir_adapters.fhir_answer import Reading
from fhir_adapters.fhir_client import FHIR_JSON, FhirClient, Retry
from fhir_adapters.intake import take
from fhir_adapters.wire import Limits
from monitoring.metrics import Way
from pipelines.config import Config, Source
from pipelines.errors import CareloomError, ConfigError
from pipelines.gateway.submission import ResourceInvalid, Sink, Submission
from pipelines.kafka.envelope import Envelope
from pipelines.kafka.producer import Producer, RecordTooLarge
from pipelines.ledger.rows import EventRow, Position


class NotRestorable(CareloomError):
    """The event's bytes cannot be had again; the message says why, and holds nothing of them."""


class Versions(Protocol):
    """The part of `FhirClient` that is asked."""

    async def read(self, resource_type: str, resource_id: str) -> Reading:
        """See `FhirClient.read`."""
        ...

    async def vread(self, resource_type: str, resource_id: str, version: str) -> Reading:
        """See `FhirClient.vread`."""
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class Restorer:
    """Reads events again at their sources and sends them to Kafka. Close it.

    Args:
        config: sources, limits, salt and broker.
        sink: the way into Kafka; made from `config` when None.
        connect: makes the client of a source, for tests.
    """

    def __init__(
        self, config: Config, *, sink: Sink | None = None, connect: Callable[[Source], Versions] | None = None
    ) -> None:
        self._config = config
        self._limits = Limits(max_body_bytes=config.gateway.max_body_bytes, max_depth=config.gateway.max_depth)
        self._sink = _Noting(sink or Producer(config))
        self._submission = Submission(config, self._sink)
        self._connect = connect or _connect
        self._servers: dict[str, Versions] = {}

    async def aclose(self) -> None:
        """Close all connections."""
        for server in self._servers.values():
            await server.aclose()
        await self._sink.close()

    async def read(self, event: EventRow) -> ClinicalEvent:
        """The very version of the resource that the event was about, from its source's server.

        Raises:
            NotRestorable: the server has it no more, or it never had an identity of its own there.
            FhirUnavailable: no answer.
        """
        source = self._source(event)
        if event.resource_id is None or event.version_id is None:
            raise NotRestorable("the sender gave it no id and version by which its server could be asked for it")
        for reading in await self._readings(source, event.resource_type, event.resource_id, event.version_id):
            found = self._event(source, event, reading)
            if found is not None and found.identity == event.event_id:
                return found
        raise NotRestorable("the FHIR server has this version no more; if there is a newer one, that is what counts")

    async def publish(self, event: ClinicalEvent) -> Position:
        """Send it to Kafka; returns where it stands now.

        Raises:
            NotRestorable: by the source's policy, or the broker's limits, it is none to be taken.
            BrokerUnavailable: not acknowledged.
        """
        source = self._config.source(event.source)
        try:
            await self._submission.submit(source, [event], way=Way.RECONCILE, received_at=datetime.now(UTC))
        except ResourceInvalid as error:
            raise NotRestorable(f"it is not valid FHIR ({error}), and its source has such refused") from None
        except RecordTooLarge as error:
            raise NotRestorable(str(error)) from None
        position = self._sink.places.pop(event.identity, None)
        if position is None:
            raise NotRestorable("it is a draft of careloom's own")
        return position

    def _source(self, event: EventRow) -> Source:
        try:
            source = self._config.source(event.source)
        except ConfigError as error:
            raise NotRestorable(str(error)) from None
        if source.base_url is None:
            raise NotRestorable(f"source {event.source} has no server to be asked (sources.base_url)")
        return source

    async def _readings(self, source: Source, kind: str, id_: str, version: str) -> Sequence[Reading]:
        """The version, and where the server keeps no history, the current one."""
        if source.name not in self._servers:
            self._servers[source.name] = self._connect(source)
        server = self._servers[source.name]
        try:
            return [await server.vread(kind, id_, version)]
        except (FhirNotFound, FhirRejected):
            pass
        try:
            return [await server.read(kind, id_)]
        except (FhirNotFound, FhirRejected):
            return []

    def _event(self, source: Source, event: EventRow, reading: Reading) -> ClinicalEvent | None:
        """Through the same intake as everything else: the same strictness, the same identity."""
        try:
            taken = take(
                source.name,
                source.fhir_version,
                "PUT",
                event.resource_type,
                event.resource_id,
                FHIR_JSON,
                reading.body,
                self._limits,
                base_url=source.base_url,
            )
        except Refused:
            return None
        return taken.events[0]


class _Noting:
    """A sink that notes where each event came to stand."""

    def __init__(self, below: Sink) -> None:
        self._below = below
        self.places: dict[str, Position] = {}

    @property
    def connected(self) -> bool:
        return self._below.connected

    @property
    def generation(self) -> int:
        return self._below.generation

    async def connect(self) -> None:
        await self._below.connect()

    async def produce(self, envelopes: Sequence[Envelope]) -> list[Position]:
        positions = await self._below.produce(envelopes)
        for envelope, position in zip(envelopes, positions, strict=True):
            self.places[dict(envelope.headers)["ce_id"].decode()] = position
        return positions

    async def close(self) -> None:
        await self._below.close()


def _connect(source: Source) -> Versions:
    token = source.server_token.get_secret_value() if source.server_token else None
    return FhirClient(str(source.base_url), token=token, retry=Retry(attempts=3))
