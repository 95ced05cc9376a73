"""How far the dispatcher is behind Kafka, asked of the broker itself."""

from __future__ import annotations

from pipelines.config import Config


def lag_of(config: Config) -> int | None:
    """Records between the dispatcher's committed offsets and the ends of the partitions; None where Kafka does not say.

    Two connections are made for it, and closed: ask seldom.
    """
    from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
    from kafka.errors import KafkaError

    try:
        consumer = KafkaConsumer(bootstrap_servers=config.kafka.bootstrap, request_timeout_ms=5000)
        admin = KafkaAdminClient(bootstrap_servers=config.kafka.bootstrap, request_timeout_ms=5000)
    except KafkaError:
        return None
    try:
        numbers = consumer.partitions_for_topic(config.kafka.topic) or set()
        partitions = [TopicPartition(config.kafka.topic, number) for number in numbers]
        ends = consumer.end_offsets(partitions)
        starts = consumer.beginning_offsets(partitions)
        committed = admin.list_group_offsets(config.kafka.group).get(config.kafka.group, {})
        behind = 0
        for partition, end in ends.items():
            taken = committed[partition].offset if partition in committed else starts[partition]
            behind += int(end) - int(taken)
    except KafkaError:
        return None
    else:
        return behind
    finally:
        consumer.close()
        admin.close()
