"""Events into Kafka, whatever way they came: a last look at them, the envelope, the wait for the acknowledgement."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Protocol

import orjson

from fhir_adapters.event import ClinicalEvent
from fhir_adapters.trace_context import TraceContext, derived
from fhir_adapters.validate import Problem, problems
from monitoring.metrics import EVENTS_PRODUCED, EVENTS_RECEIVED, OWN_DRAFTS_IGNORED, VALIDATION_PROBLEMS, Way
from pipelines.config import Config, Source
from pipelines.gateway.own_drafts import is_own_draft
from pipelines.kafka.envelope import Envelope, pack
from pipelines.ledger.rows import Position
from pipelines.telemetry import tracing

REMEMBERED = 20_000
"""Identities of acknowledged events kept in mind, for as long as the dispatcher may be behind; 2 MB."""

#: Bytes beyond which events are validated in a thread, so that they hold up no other request for long.
_SMALL = 32 * 1024


class Sink(Protocol):
    """Where envelopes go: `pipelines.kafka.producer.Producer`, and a fake in tests."""

    @property
    def connected(self) -> bool:
        """Whether the broker has answered."""
        ...

    @property
    def generation(self) -> int:
        """Changes when the connection was made anew: what the broker had before may be gone."""
        ...

    async def connect(self) -> None:
        """See `Producer.connect`."""
        ...

    async def produce(self, envelopes: Sequence[Envelope]) -> list[Position]:
        """See `Producer.produce`."""
        ...

    async def close(self) -> None:
        """See `Producer.close`."""
        ...


class ResourceInvalid(Exception):
    """A resource is not valid FHIR, and its source is configured to have such refused.

    Attributes:
        problems: where, and what kind of thing is wrong; nothing of the body.
    """

    def __init__(self, found: tuple[Problem, ...]) -> None:
        super().__init__(f"{len(found)} problems")
        self.problems = found


class Submission:
    """Takes events to Kafka.

    Args:
        config: its salt, and the share of events that are traced where their sender does not say.
        sink: where envelopes go.
    """

    def __init__(self, config: Config, sink: Sink) -> None:
        self._salt = config.patient_salt.get_secret_value()
        self._share = config.tracing.share
        self._sink = sink
        self._acknowledged: OrderedDict[str, None] = OrderedDict()
        self._under_way: dict[str, asyncio.Event] = {}
        self._generation = sink.generation

    async def submit(
        self,
        source: Source,
        events: Sequence[ClinicalEvent],
        *,
        way: Way,
        received_at: datetime,
        trace: TraceContext | None = None,
    ) -> int:
        """Validate as the source's policy says, leave careloom's own drafts out, produce the rest, and wait.

        Returns:
            the number of events that Kafka has acknowledged: all of them but own drafts.

        Raises:
            ResourceInvalid: the policy is "reject" and one is not valid; nothing was produced.
            BrokerUnavailable: not all were acknowledged.
            RecordTooLarge: the broker takes no record of this size.
        """
        if not events:
            return 0
        EVENTS_RECEIVED.labels(source.name, way).inc(len(events))
        foreign = [event for event in events if not is_own_draft(event)]
        OWN_DRAFTS_IGNORED.labels(source.name).inc(len(events) - len(foreign))
        if source.validation != "pass":
            await self._validate(source, foreign)
        if foreign:
            identities = [event.identity for event in foreign]
            with self._traced(foreign, received_at, trace) as traces, self._going(identities):
                salt, share, at = self._salt, self._share, received_at
                envelopes = [
                    pack(event, salt=salt, received_at=at, trace=own, share=share)
                    for event, own in zip(foreign, traces, strict=True)
                ]
                with tracing.span("produce", "producer", {"messaging__system": "kafka"}):
                    await self._sink.produce(envelopes)
                self._remember(identities)
            EVENTS_PRODUCED.labels(source.name).inc(len(foreign))
        return len(foreign)

    async def settled(self, identities: Iterable[str]) -> None:
        """Wait for those of the events that are on their way to Kafka just now, whatever comes of them."""
        for identity in identities:
            if (done := self._under_way.get(identity)) is not None:
                await done.wait()

    def remembers(self, identity: str) -> bool:
        """Whether this process had the event acknowledged not long ago, by the broker as it is now."""
        self._forget_another_broker()
        return identity in self._acknowledged

    def forget(self) -> None:
        """Kafka may have lost what it had acknowledged."""
        self._acknowledged.clear()

    async def _validate(self, source: Source, events: Sequence[ClinicalEvent]) -> None:
        first_only = source.validation == "reject"
        if sum(len(event.body) for event in events) > _SMALL:
            wrong = await asyncio.to_thread(_wrong, events, first_only)
        else:
            wrong = _wrong(events, first_only)
        VALIDATION_PROBLEMS.labels(source.name).inc(len(wrong))
        if wrong and first_only:
            raise ResourceInvalid(wrong[0])

    @contextlib.contextmanager
    def _traced(
        self, events: Sequence[ClinicalEvent], received_at: datetime, trace: TraceContext | None
    ) -> Iterator[Sequence[TraceContext | None]]:
        """The context that each event goes on in: of a span, where spans are made, else its sender's."""
        if not tracing.on():
            yield [trace] * len(events)
            return
        with contextlib.ExitStack() as spans:
            yield [
                spans.enter_context(
                    tracing.span(
                        "intake",
                        "server",
                        {
                            "careloom__event__id": event.identity,
                            "careloom__resource__type": event.resource_type,
                            "careloom__source": event.source,
                        },
                        parent=trace,
                        own=None if trace else derived(event.identity, self._share),
                        began=received_at,
                    )
                ).context
                or trace
                for event in events
            ]

    @contextlib.contextmanager
    def _going(self, identities: Sequence[str]) -> Iterator[None]:
        done = asyncio.Event()
        self._under_way.update(dict.fromkeys(identities, done))
        try:
            yield
        finally:
            done.set()
            for identity in identities:
                if self._under_way.get(identity) is done:
                    del self._under_way[identity]

    def _remember(self, identities: Iterable[str]) -> None:
        self._forget_another_broker()
        for identity in identities:
            self._acknowledged[identity] = None
            self._acknowledged.move_to_end(identity)
        while len(self._acknowledged) > REMEMBERED:
            self._acknowledged.popitem(last=False)

    def _forget_another_broker(self) -> None:
        if self._generation != self._sink.generation:
            self._acknowledged.clear()
            self._generation = self._sink.generation


def _wrong(events: Iterable[ClinicalEvent], first_only: bool) -> list[tuple[Problem, ...]]:
    """The problems of those that are not valid; of the first of them alone where that decides."""
    wrong = []
    for event in events:
        if event.body and (found := problems(orjson.loads(event.body), event.fhir_version)):
            wrong.append(found)
            if first_only:
                break
    return wrong
