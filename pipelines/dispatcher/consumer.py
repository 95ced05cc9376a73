"""The Kafka consumer that the dispatcher reads its topic with: how it is set, and why."""

from __future__ import annotations

import socket
from typing import Any

from kafka import KafkaConsumer

from pipelines.config import Config
from pipelines.kafka.header_names import mend_header_names

#: Records a batch, and bytes that are fetched ahead: what bounds this process's memory.
BATCH = 500
_FETCH_BYTES = 16 * 1024 * 1024
#: Milliseconds for a question to the broker that is asked outside of polling.
ANSWER_MS = 10_000


def connect(config: Config) -> Any:
    """A consumer that has subscribed to nothing yet.

    Args:
        config: where the broker is, in which group is read, and who this dispatcher is.

    Raises:
        KafkaError: the broker does not answer.
    """
    mend_header_names()
    return KafkaConsumer(
        bootstrap_servers=config.kafka.bootstrap,
        group_id=config.kafka.group,
        client_id="careloom-dispatcher",
        enable_auto_commit=False,
        # partitions are placed by the ledger's offset; this counts only where the broker has lost that offset
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
        max_poll_records=BATCH,
        fetch_max_bytes=_FETCH_BYTES,
        # the broker answers at once when there is something, and is asked twice a second when there is nothing
        fetch_max_wait_ms=500,
        # started again, a dispatcher takes up its partitions at once; another gets them when this time is over
        group_instance_id=f"{socket.gethostname()}-{config.dispatcher.metrics_port}",
        session_timeout_ms=6_000,
        heartbeat_interval_ms=500,
        # also how long a rebalance waits for a member that does not move: five minutes by default
        max_poll_interval_ms=30_000,
        request_timeout_ms=20_000,
        metadata_max_age_ms=30_000,
        bootstrap_timeout_ms=ANSWER_MS,
        reconnect_backoff_max_ms=1_000,
    )
