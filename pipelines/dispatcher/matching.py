"""A Kafka record into what the ledger takes: an event with the scenarios that it starts, or poison."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import orjson

from pipelines.envelope import Headers, NotAnEvent, unpack
from pipelines.ledger import Incoming, Match, Position

log = logging.getLogger(__name__)


class KafkaRecord(Protocol):
    """The parts of kafka-python's ConsumerRecord that are read."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class Reader:
    """Reads records.

    Args:
        types: resource types that some scenario waits for; no other body is opened.
        match: the scenarios that a parsed resource starts.
    """

    def __init__(self, types: Collection[str], match: Callable[[Mapping[str, Any]], Sequence[Match]]) -> None:
        self._types = frozenset(types)
        self._match = match

    def read(self, record: KafkaRecord) -> Incoming:
        """What the ledger takes of a record; nothing is raised for what it holds, or it would come again for ever."""
        position = Position(record.topic, record.partition, record.offset)
        try:
            event = unpack(position, record.key, record.headers, record.timestamp)
            wanted = event.change == "written" and event.resource_type in self._types
            matches = self._match(_resource(record.value)) if wanted else ()
        except NotAnEvent as error:
            log.warning("poison in %s[%d]@%d: %s", record.topic, record.partition, record.offset, error)
            return Incoming(position, None)
        return Incoming(position, event, matches)


def _resource(value: bytes | None) -> Mapping[str, Any]:
    """The record's body; numbers lose digits here, which no trigger looks at.

    Raises:
        NotAnEvent: it is no JSON object.
    """
    try:
        resource = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        resource = None
    if not isinstance(resource, dict):
        raise NotAnEvent("the value is not a JSON object")
    return resource
