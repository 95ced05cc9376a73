"""A consumer that reads single records by their position: in no group, and leaving no mark."""

from __future__ import annotations

from typing import Any

from pipelines.config import Kafka
from pipelines.kafka.header_names import mend_header_names


def consumer_by_position(config: Kafka, patience: float, **more: Any) -> Any:
    """A `kafka.KafkaConsumer`, to be assigned and sought by its caller.

    Args:
        config: where Kafka is.
        patience: seconds for the broker to answer at first, and for each request.
        more: settings of kafka-python's.

    Raises:
        KafkaError: the broker does not answer.
    """
    from kafka import KafkaConsumer

    mend_header_names()
    return KafkaConsumer(
        bootstrap_servers=config.bootstrap,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        allow_auto_create_topics=False,
        fetch_max_wait_ms=100,
        request_timeout_ms=int(patience * 1000),
        bootstrap_timeout_ms=int(patience * 1000),
        **more,
    )
