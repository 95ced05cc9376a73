"""The way of one request: what was sent -> events -> Kafka -> and only then an answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fhir_adapters import trace_context
from fhir_adapters.errors import NotFhir
from fhir_adapters.event import ClinicalEvent
from fhir_adapters.intake import take
from fhir_adapters.notification import Intake
from fhir_adapters.trace_context import TraceContext, parse
from fhir_adapters.wire import Limits
from monitoring.metrics import Way
from pipelines.config import Source
from pipelines.fail_points import fail_point
from pipelines.gateway.errors import NoWayToRead
from pipelines.gateway.event_numbers import EventNumbers
from pipelines.gateway.hospital import Hospital
from pipelines.gateway.log import place
from pipelines.gateway.reconcile import Reconciler
from pipelines.gateway.submission import Submission

log = logging.getLogger(__name__)

#: A body of more bytes is taken apart in a thread, so that it does not hold up every other request.
_SMALL = 32 * 1024

#: What a reader raises when it meets a structure that it did not look for.
_BROKEN = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request of an admitted source.

    Attributes:
        source: who sent it.
        method: POST, PUT or DELETE.
        path_type: FHIR type in the path, or None.
        path_id: logical id in the path, or None.
        headers: lower-case names.
        body: as it came over the wire.
        received_at: when the last byte of it was there.
    """

    source: Source
    method: str
    path_type: str | None
    path_id: str | None
    headers: Mapping[str, str]
    body: bytes
    received_at: datetime

    @property
    def trace(self) -> TraceContext | None:
        """The sender's trace context; None where it is absent or malformed."""
        return parse(self.headers.get("traceparent"), self.headers.get("tracestate"))


class Reception:
    """Takes what the sources send.

    Args:
        limits: of a body.
        submission: the way into Kafka.
        hospitals: source -> its FHIR server, for those that have one.
        reconciler: searches when something changed and nobody says what.
        numbers: is told of every notification whose events are in Kafka.
    """

    def __init__(
        self,
        limits: Limits,
        submission: Submission,
        hospitals: Mapping[str, Hospital],
        reconciler: Reconciler,
        numbers: EventNumbers,
    ) -> None:
        self._limits = limits
        self._submission = submission
        self._hospitals = hospitals
        self._reconciler = reconciler
        self._numbers = numbers

    async def receive(self, arrival: Arrival) -> None:
        """When this returns, whatever the request said is durable in Kafka.

        Raises:
            Refused, GatewayRefusal, ResourceInvalid, RecordTooLarge: the request cannot be taken.
            BrokerUnavailable, FhirServerError, SQLAlchemyError, NotBegun: not now.
        """
        source = arrival.source
        trace_context.current.set(arrival.trace)
        intake = await self._take(arrival)
        if (intake.to_read or intake.search) and source.name not in self._hospitals:
            raise NoWayToRead(
                "the notification holds no resource, and this source has no base_url to read it from; set base_url, or"
                " have full resources sent"
            )
        events = [*intake.events, *await self._read(source, intake)]
        fail_point("gateway.accepted")
        await self._submission.submit(
            source,
            events,
            way=_way(arrival, intake),
            received_at=arrival.received_at,
            trace=trace_context.current.get(),
        )
        fail_point("gateway.produced")
        if intake.search:
            await self._reconciler.search(source.name)
        if intake.notification is not None:
            self._numbers.note(source.name, intake.notification)

    async def _take(self, arrival: Arrival) -> Intake:
        def run() -> Intake:
            return _shielded_take(
                arrival.source.name,
                arrival.source.fhir_version,
                arrival.method,
                arrival.path_type,
                arrival.path_id,
                arrival.headers.get("content-type"),
                arrival.body,
                self._limits,
                content_encoding=arrival.headers.get("content-encoding"),
                base_url=arrival.source.base_url,
            )

        packed = "content-encoding" in arrival.headers
        return await asyncio.to_thread(run) if packed or len(arrival.body) > _SMALL else run()

    async def _read(self, source: Source, intake: Intake) -> list[ClinicalEvent]:
        if not intake.to_read:
            return []
        return await self._hospitals[source.name].read(intake.to_read)


def _shielded_take(*request: Any, **more: Any) -> Intake:
    """`take`, with a body that breaks a reader refused like any other that cannot be read; the fault is logged."""
    try:
        return take(*request, **more)
    except _BROKEN as error:
        kind, where = place(error)
        log.error("a reader broke: %s at %s", kind, where)  # noqa: TRY400 the message may quote the body
    raise NotFhir("the body is not the structure that FHIR asks for")


def _way(arrival: Arrival, intake: Intake) -> Way:
    if intake.notification is not None:
        return Way.SUBSCRIPTION
    return Way.REST_HOOK if arrival.path_type is not None else Way.POST
