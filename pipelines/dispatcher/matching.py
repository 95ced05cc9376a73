"""A Kafka record into what the ledger takes: an event with the scenarios that it starts, a decision, or poison.

A Task by which careloom asks for approval starts nothing, whoever has moved it on: it is a decision, or none yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson

from fhir_adapters.approval import APPROVE
from fhir_adapters.decision import decision_of, is_ours
from fhir_adapters.errors import AdapterError
from pipelines.errors import PoisonReason
from pipelines.kafka.envelope import NotAnEvent, record_time, unpack
from pipelines.kafka.records import KafkaRecord
from pipelines.ledger import Decision, EventRow, Incoming, Match, Poison, Position
from plugins.matching import Matcher
from plugins.scenario import Scenario

log = logging.getLogger(__name__)

_APPROVE = f'"{APPROVE}"'.encode()


class Reader:
    """Reads records.

    Args:
        types: resource types that some scenario waits for; no other body is opened, but that of a Task that may be a
            decision.
        match: the scenarios that a parsed resource starts.
    """

    def __init__(self, types: Collection[str], match: Callable[[Mapping[str, Any]], Sequence[Match]]) -> None:
        self._types = frozenset(types)
        self._match = match

    def read(self, record: KafkaRecord) -> Incoming:
        """What the ledger takes of a record; nothing is raised for what it holds, or it would come again for ever."""
        position = Position(record.topic, record.partition, record.offset)
        try:
            return self._event(record, position)
        except NotAnEvent as error:
            reason, why = error.reason, str(error)
        except RecursionError:
            reason, why = PoisonReason.TOO_DEEP, "the value is nested too deep"
        except Exception as error:  # noqa: BLE001 a fault of ours over one record must not hold up its partition
            reason, why = PoisonReason.UNREADABLE, f"reading it failed: {type(error).__name__}"
        log.warning("poison in %s[%d]@%d: %s: %s", record.topic, record.partition, record.offset, reason, why)
        return Incoming(position, None, poison=Poison(reason, record_time(record.timestamp)))

    @property
    def types(self) -> frozenset[str]:
        """Resource types that some scenario waits for."""
        return self._types

    def matches(self, event: EventRow, value: bytes | None) -> Sequence[Match]:
        """The scenarios that an event starts.

        Raises:
            NotAnEvent: its value is not what its envelope says.
        """
        if event.change != "written":
            return ()
        if value is None:
            raise NotAnEvent(PoisonReason.TOMBSTONE, "it has no value, though its envelope says written")
        if event.resource_type not in self._types:
            return ()
        resource = _resource(value)
        return () if _may_decide(event, value) and is_ours(resource) else self._match(resource)

    def _event(self, record: KafkaRecord, position: Position) -> Incoming:
        event = unpack(position, record.key, record.headers, record.timestamp)
        matches = self.matches(event, record.value)
        return Incoming(position, event, matches, decision=_decision(event, record.value))


def reader_of(scenarios: Iterable[Scenario[Any]]) -> Reader:
    """A reader that knows these scenarios; a trigger that fails on a resource is no other scenario's trouble."""
    matchers = [(Match(s.id, s.version, s.stage.value), Matcher([s])) for s in scenarios]

    def match(resource: Mapping[str, Any]) -> Sequence[Match]:
        found = []
        for started, matcher in matchers:
            try:
                if matcher.match(resource):
                    found.append(started)
            except AdapterError as error:
                log.warning("a trigger of %s does not start it: %s", started.scenario, error)
        return found

    return Reader(frozenset().union(*(matcher.types for _, matcher in matchers)), match)


def _may_decide(event: EventRow, value: bytes | None) -> bool:
    """The cheap test: next to no event goes further."""
    return event.resource_type == "Task" and event.change == "written" and value is not None and _APPROVE in value


def _decision(event: EventRow, value: bytes | None) -> Decision | None:
    """What a person has decided, where that is what the event tells of.

    Raises:
        NotAnEvent: its value is not what its envelope says.
    """
    if value is None or not _may_decide(event, value):
        return None
    said = decision_of(_resource(value))
    if said is None:
        return None
    decided_at = said.decided_at or event.last_updated or event.received_at
    return Decision(said.identity, said.verdict, said.who, decided_at)


def _resource(value: bytes) -> Mapping[str, Any]:
    """The record's body; numbers lose digits here, which no trigger looks at.

    Raises:
        NotAnEvent: it is no JSON object, or one nested too deep.
    """
    try:
        resource = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        if "depth limit" in error.msg:
            raise NotAnEvent(PoisonReason.TOO_DEEP, "the value is nested too deep") from None
        raise NotAnEvent(PoisonReason.NOT_JSON, "the value is not JSON") from None
    if not isinstance(resource, dict):
        raise NotAnEvent(PoisonReason.NOT_A_RESOURCE, "the value is JSON, but no object")
    return resource
