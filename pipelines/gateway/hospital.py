"""A source's FHIR server as the gateway needs it: to be read, searched, subscribed to, and asked for its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

import httpx

from fhir_adapters.errors import FhirNotFound, FhirUnavailable, Refused
from fhir_adapters.event import ClinicalEvent
from fhir_adapters.fhir_answer import Found, Reading
from fhir_adapters.fhir_client import FHIR_JSON, FhirClient
from fhir_adapters.intake import take
from fhir_adapters.notification import Pointer
from fhir_adapters.resource_event import Sender, deleted
from fhir_adapters.subscribe import Ensured, ensure_subscriptions
from fhir_adapters.wire import Limits
from pipelines.config import Config, Source

IN_FLIGHT = 8
"""Reads at a server at the same time, over all requests."""
READING_TIMEOUT = 20.0
"""Seconds for all reads of one notification; then its sender is told to send it again."""
CHUNK = 2_000
"""Resources of one search held in memory; where more changed, the search goes on from the newest of them."""

HEARTBEAT = 60
"""Seconds after which a server with nothing to say is asked to say that it is still there."""

_PAGE = "200"
#: A 404 may only mean that the notification was faster than the server's own commit.
_SECOND_LOOKS = (0.2, 0.5)


class Hospital(Protocol):
    """What the gateway asks of a source's FHIR server."""

    async def read(self, pointers: Sequence[Pointer]) -> list[ClinicalEvent]:
        """The current versions; what is gone (404, 410) becomes a deletion.

        Raises:
            FhirServerError: one could not be read.
            Refused: one is no resource that this source may send.
        """
        ...

    def changed_since(self, resource_type: str, since: datetime) -> AsyncIterator[tuple[list[ClinicalEvent], int]]:
        """What was written at or after `since`, in chunks: the events, and the number of resources that are unusable.

        Raises:
            FhirServerError: the search failed; what was yielded before is right but not all.
        """
        ...

    async def time(self) -> datetime:
        """The server's own time, by which its `_lastUpdated` is to be asked; ours where it does not tell.

        Raises:
            FhirServerError: no answer.
        """
        ...

    async def subscribe(self, types: Sequence[str], endpoint: str) -> Sequence[Ensured]:
        """See to it that the server tells `endpoint` of every change of `types`; nothing where the source wants none.

        Raises:
            FhirServerError: it could not be had.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class FhirHospital:
    """A `Hospital` over FHIR's REST API. Close it.

    Args:
        source: with a base_url.
        limits: of one resource.
        transport: for tests.
    """

    def __init__(self, source: Source, limits: Limits, *, transport: httpx.AsyncBaseTransport | None = None) -> None:
        if source.base_url is None:
            raise ValueError("a source without base_url has no server to read from")
        self._source = source
        self._base_url = source.base_url
        self._limits = limits
        self._dates = _Dates(transport or httpx.AsyncHTTPTransport(retries=1))
        token = source.server_token.get_secret_value() if source.server_token else None
        self._client = FhirClient(source.base_url, token=token, timeout=READING_TIMEOUT, transport=self._dates)
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def read(self, pointers: Sequence[Pointer]) -> list[ClinicalEvent]:
        """See `Hospital.read`."""
        try:
            async with asyncio.timeout(READING_TIMEOUT), asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._read(pointer)) for pointer in dict.fromkeys(pointers)]
        except TimeoutError:
            raise FhirUnavailable(f"the FHIR server did not answer all reads within {READING_TIMEOUT:g} s") from None
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return [task.result() for task in tasks]

    async def changed_since(
        self, resource_type: str, since: datetime
    ) -> AsyncIterator[tuple[list[ClinicalEvent], int]]:
        """See `Hospital.changed_since`."""
        cap = CHUNK
        while True:
            found = await self._search(resource_type, since, cap)
            yield self._events(found.resources)
            if not found.truncated:
                return
            newest = _newest_if_sorted(found.resources)
            if newest is not None and newest > since:
                since, cap = newest, CHUNK
            else:  # not sorted, or all of one instant: a longer look is the only way on
                cap *= 4

    async def time(self) -> datetime:
        """See `Hospital.time`."""
        await self._client.search("Patient", {"_count": "1", "_elements": "id"}, cap=1)
        return self._dates.last or datetime.now(UTC)

    async def subscribe(self, types: Sequence[str], endpoint: str) -> Sequence[Ensured]:
        """See `Hospital.subscribe`."""
        if self._source.subscription == "none":
            return ()
        return await ensure_subscriptions(
            self._client,
            source=self._source.name,
            style=self._source.subscription,
            types=types,
            endpoint=endpoint,
            token=self._source.token.get_secret_value(),
            heartbeat=HEARTBEAT,
        )

    async def _search(self, resource_type: str, since: datetime, cap: int) -> Found:
        instant = since.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        params = {"_lastUpdated": f"ge{instant}", "_sort": "_lastUpdated", "_count": _PAGE}
        return await self._client.search(resource_type, params, cap=cap)

    def _events(self, readings: Sequence[Reading]) -> tuple[list[ClinicalEvent], int]:
        events: list[ClinicalEvent] = []
        unusable = 0
        for reading in readings:
            try:
                events.append(self._event(reading))
            except Refused:
                unusable += 1
        return events, unusable

    async def _read(self, pointer: Pointer) -> ClinicalEvent:
        for pause in (*_SECOND_LOOKS, None):
            try:
                async with self._in_flight:
                    reading = await self._client.read(pointer.resource_type, pointer.resource_id)
                return self._event(reading, pointer)
            except FhirNotFound as error:
                if error.status == httpx.codes.GONE or pause is None:
                    break
            await asyncio.sleep(pause)
        sender = Sender(self._source.name, self._source.fhir_version)
        return deleted(sender, pointer.resource_type, pointer.resource_id)

    def _event(self, reading: Reading, pointer: Pointer | None = None) -> ClinicalEvent:
        """Through the same intake as everything else: the same strictness, the same identity."""
        kind = pointer.resource_type if pointer else str(reading.resource.get("resourceType"))
        intake = take(
            self._source.name,
            self._source.fhir_version,
            "PUT",
            kind,
            pointer.resource_id if pointer else None,
            FHIR_JSON,
            reading.body,
            self._limits,
            base_url=self._base_url,
        )
        return intake.events[0]


class _Dates(httpx.AsyncBaseTransport):
    """Notes the Date header of every answer."""

    def __init__(self, below: httpx.AsyncBaseTransport) -> None:
        self._below = below
        self.last: datetime | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._below.handle_async_request(request)
        try:
            date = parsedate_to_datetime(response.headers.get("date", ""))
            self.last = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        except ValueError:
            self.last = None
        return response

    async def aclose(self) -> None:
        await self._below.aclose()


def hospitals(config: Config, limits: Limits) -> dict[str, FhirHospital]:
    """Source name -> its server, for every source that has one."""
    return {source.name: FhirHospital(source, limits) for source in config.sources if source.base_url is not None}


def _newest_if_sorted(readings: Sequence[Reading]) -> datetime | None:
    """The last one's meta.lastUpdated where all have one and they ascend, else None."""
    instants: list[datetime] = []
    for reading in readings:
        meta = reading.resource.get("meta")
        value = meta.get("lastUpdated") if isinstance(meta, dict) else None
        try:
            instant = datetime.fromisoformat(str(value))
        except ValueError:
            return None
        if instant.tzinfo is None or (instants and instant < instants[-1]):
            return None
        instants.append(instant)
    return instants[-1] if instants else None
