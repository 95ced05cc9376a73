"""What is done to events and their work, to the ledger, and to a disk."""

from __future__ import annotations

import subprocess
import time

import psycopg
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from psycopg.sql import SQL, Identifier

from tests.fault_table.fault import Do
from tests.fault_table.flow import EVERY, EXAM
from tests.fault_table.front import MARK
from tests.fault_table.house import SMALL_DISK, House

#: Seconds that a burst lasts.
BURST = 90.0


def park(house: House) -> None:
    house.front("reject-one")
    house.hospital.admit(MARK)


def fail_now_and_then(house: House) -> None:
    """With more to do than usual, most in a short window: a share of few says little, and the alert knows that."""
    house.flow.every = EVERY / 2 * house.scale
    house.model("share")


def fail_no_more(house: House) -> None:
    house.flow.every = EVERY
    house.model("")


def poison(house: House) -> None:
    producer = KafkaProducer(bootstrap_servers=house.config.kafka.bootstrap)
    producer.send(house.config.kafka.topic, key=b"x", value=b"<not json>").get(30)
    producer.close()


def fill(house: House) -> None:
    if not house.has_small_disk:
        raise AssertionError("a small file system cannot be mounted here: it needs root")
    (house.places.small_disk / "full").write_bytes(b"x" * (SMALL_DISK * 95 // 100))


def lose_records(house: House) -> None:
    """Retention is faster than the dispatcher, which a stranger's lock holds meanwhile.

    What it has read already is of no scenario: a piece of work whose record is gone would be parked as well.
    """
    house.flow.paused = True
    try:
        house.wait(lambda: house.unfinished() == 0, 60)
        lock("events")(house)
        house.hospital.admit(status="cancelled")
        time.sleep(_BETWEEN)
        _lost[:] = [house.hospital.admit() for _ in range(12)]
        time.sleep(_BETWEEN)
        admin = KafkaAdminClient(bootstrap_servers=house.config.kafka.bootstrap)
        topic, partitions = house.config.kafka.topic, range(house.config.kafka.partitions)
        admin.delete_records({TopicPartition(topic, partition): -1 for partition in partitions})
        admin.close()
    finally:
        unlock(house)
        house.flow.paused = False


def found_again(house: House) -> None:
    """The page's way has to bring back what was lost."""
    named = ", ".join(f"'{name}'" for name in _lost)
    query = f"SELECT count(DISTINCT resource_id) FROM events WHERE resource_id IN ({named})"
    if house.wait(lambda: house.count(query) == len(_lost), 60) is None:
        raise AssertionError(f"{house.count(query)} of {len(_lost)} lost events were found again")


def empty(house: House) -> None:
    (house.places.small_disk / "full").unlink(missing_ok=True)


def burst(house: House) -> None:
    house.flow.every = EVERY / 10
    time.sleep(BURST)
    house.flow.every = EVERY


def switch_off(house: House) -> None:
    command = ["careloom", "switch", "off", "scenario", EXAM, "--why", "the fault run"]
    subprocess.run(command, env=house.shell(), cwd=house.places.house, check=True, capture_output=True)


def switch_on(house: House) -> None:
    house.ledger.switch_on("scenario", EXAM, by="the fault run")


#: Seconds until an event is in Kafka, and read where nothing holds it; and the Encounters of those that get lost.
_BETWEEN = 4.0
_lost: list[str] = []
_locks: list[psycopg.Connection] = []


def lock(table: str) -> Do:
    """Somebody's transaction holds a table and does not end; of ours PostgreSQL ends one that idles."""

    def lock(house: House) -> None:
        connection = psycopg.connect(house.kept.database("careloom"))
        connection.execute(SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(Identifier(table)))
        house.words["PID"] = str(connection.info.backend_pid)
        _locks.append(connection)

    return lock


def unlock(house: House) -> None:
    while _locks:
        _locks.pop().close()


def miscount(house: House, by: int) -> None:
    """Somebody writes into the ledger's tables by hand."""
    first = "(SELECT min(partition) FROM progress)"
    house.sql(f"UPDATE progress SET events = events + {by} WHERE partition = {first}")
