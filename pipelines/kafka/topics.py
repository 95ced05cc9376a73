"""Makes sure that the topics are there as the way needs them; safe at every start, and by several at once."""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError, TopicAlreadyExistsError

from pipelines.config import Config
from pipelines.errors import CareloomError

#: What the envelope's headers and the record's framing may add to a body.
ENVELOPE_BYTES = 64 * 1024

_TIMESTAMPS = "message.timestamp.type"


class BrokerUnavailable(CareloomError):
    """The broker does not answer, or did not acknowledge in time: worth another try."""


class TopicUnusable(CareloomError):
    """The topic cannot be made, or is not as the way needs it; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A topic as it is to be.

    Attributes:
        partitions: how many it is made with; one that is there keeps those that it has.
        key: of the configuration, for whoever has to mend it.
        settings: the broker's, by their names.
    """

    name: str
    partitions: int
    key: str
    settings: dict[str, str]


@dataclass(frozen=True, slots=True)
class Topic:
    """The topic as the broker has it.

    Attributes:
        name: of the topic.
        partitions: how many there are.
        broker_time: whether a record's timestamp is the broker's append time; else it is when the gateway sent it.
        notes: for the operator: what the broker would not do.
    """

    name: str
    partitions: int
    broker_time: bool
    notes: tuple[str, ...] = ()


def wanted_settings(config: Config) -> dict[str, str]:
    """The topic's settings.

    `durable_at` is to be the broker's word, so records carry its append time. A body at the gateway's limit must fit.
    With three copies or more an acknowledgement must stand for two, or acks=all promises nothing.
    """
    settings = {
        _TIMESTAMPS: "LogAppendTime",
        "max.message.bytes": str(config.gateway.max_body_bytes + ENVELOPE_BYTES),
        "cleanup.policy": "delete",
    }
    if config.kafka.replication >= 3:
        settings["min.insync.replicas"] = "2"
    return settings


def ensure_topic(config: Config, *, timeout: float = 10.0) -> Topic:
    """Make the topic of events where it is missing and bring its settings up to date where the broker can be told.

    Partitions are never added to a topic that is there: keys would move, and with them a patient's order.

    Args:
        config: its `kafka` and `gateway` sections.
        timeout: seconds for the broker to answer at first, and for each request.

    Raises:
        BrokerUnavailable: no answer.
        TopicUnusable: the broker refuses to make it.
    """
    kafka = config.kafka
    return _topic(config, Wanted(kafka.topic, kafka.partitions, "kafka.topic", wanted_settings(config)), timeout)


def ensure_dead_letter_topic(config: Config, *, timeout: float = 10.0) -> Topic:
    """The same for the topic of records that are no events: one partition, kept as long as the configuration says.

    A copy carries more headers than its record, and a record may be as large as the topic of events takes it.

    Raises:
        BrokerUnavailable: no answer.
        TopicUnusable: the broker refuses to make it.
    """
    settings = wanted_settings(config)
    settings["max.message.bytes"] = str(int(settings["max.message.bytes"]) + ENVELOPE_BYTES)
    settings["retention.ms"] = str(int(config.kafka.dead_letter_retention * 1000))
    return _topic(config, Wanted(config.kafka.dead_letters, 1, "kafka.dead_letter_topic", settings), timeout)


def _topic(config: Config, wanted: Wanted, timeout: float) -> Topic:
    milliseconds = int(timeout * 1000)
    if not _answers(config.kafka.bootstrap, timeout):
        raise BrokerUnavailable(
            f"no Kafka broker answers at {config.kafka.bootstrap} (no connection); start it, or set kafka.bootstrap"
        )
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=config.kafka.bootstrap,
            bootstrap_timeout_ms=milliseconds,
            request_timeout_ms=milliseconds,
            client_id="careloom-topics",
        )
    except KafkaError as error:
        raise BrokerUnavailable(
            f"no Kafka broker answers at {config.kafka.bootstrap} ({type(error).__name__}); start it, or set"
            " kafka.bootstrap"
        ) from None
    with contextlib.closing(admin):
        try:
            return _ensure(admin, wanted, config.kafka.replication)
        except KafkaError as error:
            if error.retriable:
                raise BrokerUnavailable(
                    f"the broker broke off while the topic was made ({type(error).__name__})"
                ) from None
            raise TopicUnusable(
                f"topic {wanted.name}: the broker refuses it ({type(error).__name__}); check {wanted.key},"
                " kafka.partitions and kafka.replication against the cluster"
            ) from None


def _answers(bootstrap: str, timeout: float) -> bool:
    """Whether any of the brokers takes a connection.

    Asked first, since kafka-python 3.0.12 leaves a thread behind with every client that finds no broker: an outage
    would leave one for each try.
    """
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), timeout):
            return True
    return False


def _ensure(admin: Any, wanted: Wanted, replication: int) -> Topic:
    notes: list[str] = []
    if wanted.name not in admin.list_topics():
        _create(admin, wanted, replication, notes)
    admin.wait_for_topics([wanted.name])
    found = admin.describe_topics([wanted.name])[0]["partitions"]
    if len(found) != wanted.partitions:
        notes.append(f"has {len(found)} partitions, not {wanted.partitions}: left so, as keys would move")
    return Topic(wanted.name, len(found), _settle(admin, wanted.name, wanted.settings, notes), tuple(notes))


def _create(admin: Any, wanted: Wanted, replication: int, notes: list[str]) -> None:
    size = {"num_partitions": wanted.partitions, "replication_factor": replication}
    with contextlib.suppress(TopicAlreadyExistsError):  # another process was faster
        try:
            admin.create_topics({wanted.name: {**size, "configs": wanted.settings}})
        except TopicAlreadyExistsError:
            raise
        except KafkaError as error:
            if error.retriable:
                raise
            admin.create_topics({wanted.name: size})
            notes.append(f"the broker took no settings with the topic ({type(error).__name__})")


def _settle(admin: Any, name: str, settings: dict[str, str], notes: list[str]) -> bool:
    """Set what differs; returns whether timestamps are the broker's. A broker that cannot be told is left as it is."""
    try:
        present = _settings(admin, name)
        missing = {key: value for key, value in settings.items() if present.get(key) != value}
        if missing:
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=missing)])
            present = _settings(admin, name)
    except (KafkaError, ValueError) as error:
        notes.append(f"the broker does not let its settings be changed ({type(error).__name__})")
        present = {}
    return present.get(_TIMESTAMPS) == settings[_TIMESTAMPS]


def _settings(admin: Any, name: str) -> dict[str, Any]:
    resource = ConfigResource(ConfigResourceType.TOPIC, name, configs=None)
    described = admin.describe_configs([resource], config_filter="all")
    return {key: value["value"] for key, value in described.get("topic", {}).get(name, {}).items()}
