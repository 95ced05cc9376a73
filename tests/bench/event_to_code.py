"""From an event in Kafka to the scenario's code, one by one on an idle system: ours beside Airflow's two own ways.

All three start at the same moment, right before the record is produced with acks=all, one way after the other: an
idle Kafka trigger slows every other trigger down. Airflow's own ways run in an Airflow with its own defaults, the
first of them once more with the settings that careloom ships. Ours is told three times: taken by a run that stays,
which is what events meet of whose scenario there was one in the last half minute; after a rest that no run with rows
outlasts, of a scenario in `runner.standing`; and cold, where nothing of the scenario runs and Airflow starts a task for
it. Which of them an event met is read from its run. Ours ends where the run's task begins on the row (`started_at`);
when its record has been read and the rules begin is told beside it. Airflow's ways end on the first line of a task that
does nothing else.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic

from fhir_adapters.intake import take
from pipelines.kafka.envelope import pack
from pipelines.stack.environment import Stack
from tests.bench import tools
from tests.bench.figures import Result, Say, main, percentile
from tests.bench.house import SCENARIO, SOURCE, House, appointments

OURS, THEIRS = 40, 20
QUICK = 8
#: Seconds from the end of one event's way to the next event: the same for all; and what lets an Airflow trigger rest.
PAUSE, RESTED = (0.3, 1.0), (4.0, 6.0)
#: Seconds that a run with rows stays where rest is measured: less than the shortest rest.
_STAY = 1.0
#: Seconds after which an event that did not arrive counts as lost, and after which a way that never did is given up.
_LOST, _NEVER = 30.0, 150.0

_DAG = """
import time
from airflow.sdk import DAG, Asset, AssetWatcher, BaseOperator
{imports}

class Note(BaseOperator):
    def execute(self, context):
        now = time.time()
        with open({file!r}, "a") as out:
            out.write(f"{{now}}\\n")

asset = Asset({name!r}, watchers=[AssetWatcher(name={name!r}, trigger={trigger})])
with DAG({name!r}, schedule=[asset], max_active_runs=100, is_paused_upon_creation=False) as dag:
    Note(task_id="note", do_xcom_push=False)
"""
#: What we have changed that has to do with speed, as Airflow 3.3.2 comes.
_AS_IT_COMES = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
    "AIRFLOW__SDK__COORDINATORS": "{}",
    "AIRFLOW__SDK__QUEUE_TO_COORDINATOR": "{}",
}
_MESSAGING = "airflow.providers.common.messaging.triggers.msg_queue"
_SHARED = "airflow.providers.apache.kafka.triggers.shared_stream"
#: Name of topic, DAG and connection -> (what it is called, import, trigger).
_WAYS = {
    "bench_queue": (
        "MessageQueueTrigger",
        f"from {_MESSAGING} import MessageQueueTrigger",
        'MessageQueueTrigger(scheme="kafka", topics=["bench_queue"], kafka_config_id="bench_queue")',
    ),
    "bench_shared": (
        "KafkaSharedStreamTrigger",
        f"from {_SHARED} import KafkaSharedStreamTrigger",
        'KafkaSharedStreamTrigger(topics=["bench_shared"], kafka_config_id="bench_shared")',
    ),
}


def bench(quick: bool, say: Say) -> Result:
    """Ours, then each of Airflow's ways."""
    result = Result("event_to_code")
    why_not = ""
    try:
        _on_path(tools.folder("kafka-triggers"))
    except tools.Missing as error:
        why_not = str(error)
        say(f"Airflow's own ways cannot be had: {why_not}")
    sizes = (QUICK, QUICK) if quick else (OURS, THEIRS)
    with House(say, config={"runner": {"stay": _STAY, "standing": [SCENARIO]}}) as house:
        house.warm_up()
        _until_one_stands(house)
        with _producer(house) as producer:
            rested = _ours(house, producer, sizes[1], result, say, way=_RESTED)
    with House(say, environment=_connections) as house:
        house.warm_up()
        with _producer(house) as producer:
            ours = _ours(house, producer, sizes[0], result, say, way=_WARM)
            _ours(house, producer, sizes[1], result, say, way=_COLD)
            if not why_not:
                _theirs(house, producer, "bench_queue", QUICK, " with our settings of Airflow", result, say)
    if not why_not:
        with (
            House(say, parts=("kafka", "airflow"), airflow=_AS_IT_COMES, environment=_connections) as house,
            _producer(house) as producer,
        ):
            queue = _theirs(house, producer, "bench_queue", sizes[1], "", result, say)
            _theirs(house, producer, "bench_shared", sizes[1], "", result, say)
        for way, samples in ((_WARM, ours), (_RESTED, rested)):
            ratio = percentile(samples, 50) / percentile(queue, 50)
            result.hold(f"{way.title} against MessageQueueTrigger, p50", ratio, "x", at_most=0.1)
    result.details["why Airflow's own ways are missing"] = why_not
    return result


@dataclass(frozen=True, slots=True)
class _Way:
    """How ours is measured: what it is called, tag of its events, seconds between them, and whether a run may stay."""

    title: str
    tag: str
    pause: tuple[float, float]
    cold: bool = False


_WARM = _Way("ours", "one", PAUSE)
_RESTED = _Way("ours, rested and standing", "rest", RESTED)
_COLD = _Way("ours, cold", "cold", PAUSE, cold=True)


@contextmanager
def _producer(house: House) -> Iterator[Any]:
    producer = KafkaProducer(bootstrap_servers=house.config.kafka.bootstrap, acks="all", linger_ms=0)
    try:
        yield producer
    finally:
        producer.close()


def _ours(house: House, producer: Any, number: int, result: Result, say: Say, *, way: _Way) -> list[float]:
    """Seconds from an event's way into careloom's topic to the run's code."""
    met, seen = 0, {row.run_id for row in house.rows("warm1")} | set(house.open_runs())
    salt, topic = house.config.patient_salt.get_secret_value(), house.config.kafka.topic
    samples: list[dict[str, float]] = []
    for n in range(number):
        tag = f"{way.tag}{n}"
        if way.cold:
            house.let_no_run_stay()
        (body,) = appointments(tag, 1).values()
        (event,) = take(SOURCE, "R4", "POST", None, None, "application/fhir+json", body).events
        envelope = pack(event, salt=salt, received_at=datetime.now(UTC))
        began = time.time()
        producer.send(topic, value=envelope.value, key=envelope.key, headers=envelope.headers).get(30)
        (row,) = house.drain(tag, 1)
        met += row.run_id in seen
        seen.add(row.run_id)
        samples.append({hop: at - began for hop, at in row.times.items() if at is not None})
        _pause(*way.pause)
    started = [sample["started"] for sample in samples]
    result.spread(f"{way.title}: event to scenario code", started)
    if not way.cold:
        result.hold(f"{way.title}: event to scenario code, p50 (aim)", percentile(started, 50), "s", at_most=0.25)
    result.add(f"{way.title}: taken by a run that stayed, of {number}", met, "")
    result.spread(f"{way.title}: event to its record read and rules begun", [sample["context"] for sample in samples])
    result.spread(f"{way.title}: event to draft written", [sample["written"] for sample in samples])
    result.details[way.title] = samples
    say(f"{way.title}: p50 {percentile(started, 50):.3f} s, {met} of {number} taken by a run that stayed")
    return started


def _until_one_stands(house: House) -> None:
    """Wait until the runs of the first events have left and a run stands.

    Raises:
        TimeoutError: none does.
    """
    house.until(lambda: house.standing_runs() == 1, 90.0, "no run stands")


def _theirs(house: House, producer: Any, name: str, number: int, how: str, result: Result, say: Say) -> list[float]:
    """Seconds from a message to the first line of the task that an asset with this watcher starts."""
    title, imports, trigger = _WAYS[name]
    title += how
    noted = house.folder / f"{name}.txt"
    noted.write_text("")
    _make_topic(house.config.kafka.bootstrap, name)
    dag = house.dags / f"{name}.py"
    dag.write_text(_DAG.format(imports=imports, file=str(noted), name=name, trigger=trigger))
    house.await_dags(name)
    if _one(producer, name, noted, _NEVER) is None:
        say(f"{title}: nothing came through in {_NEVER:.0f} s")
        number = 0
    taken = _in_turn(producer, name, noted, number, PAUSE)
    # one message ends a MessageQueueTrigger; another has to be started, and to join its consumer group
    rested = _in_turn(producer, name, noted, min(number, QUICK), RESTED)
    say(f"{title}: p50 {percentile(taken, 50):.3f} s, rested {percentile(rested, 50):.3f} s")
    result.spread(f"{title}: event to task code", taken)
    result.add(
        f"{title}: the same after {RESTED[0]:g} to {RESTED[1]:g} s without any, p50", percentile(rested, 50), "s"
    )
    lost = number + min(number, QUICK) - len(taken) - len(rested)
    result.add(f"{title}: not within {_LOST:.0f} s", lost, "")
    result.details[title] = {"taken": taken, "rested": rested}
    dag.unlink()
    _forget(house, name)
    return taken


def _in_turn(producer: Any, topic: str, noted: Path, number: int, pause: tuple[float, float]) -> list[float]:
    """Seconds of those messages that came through."""
    taken = []
    for _ in range(number):
        _pause(*pause)
        seconds = _one(producer, topic, noted, _LOST)
        if seconds is not None:
            taken.append(seconds)
    return taken


def _one(producer: Any, topic: str, noted: Path, patience: float) -> float | None:
    """Send one message; the seconds until one more line is noted, None where none comes."""
    before = len(noted.read_text().splitlines())
    began = time.time()
    producer.send(topic, value=b"event").get(30)
    while time.time() - began < patience:
        lines = noted.read_text().splitlines()
        if len(lines) > before:
            return float(lines[-1]) - began
        time.sleep(0.01)
    return None


def _pause(least: float, most: float) -> None:
    """Not in step with anybody's loop."""
    time.sleep(random.uniform(least, most))


def _forget(house: House, name: str) -> None:
    """Airflow's triggers outlive the DAG's file; the next way is to be alone."""
    time.sleep(12)  # the DAG processor notices that the file is gone
    with psycopg.connect(house.stack.kept.database("airflow"), autocommit=True) as airflow:
        airflow.execute("UPDATE dag SET is_paused = true WHERE dag_id = %s", (name,))
        airflow.execute("DELETE FROM asset_watcher")
        airflow.execute("DELETE FROM trigger")
    house.stack.restart("triggerer")


def _make_topic(bootstrap: str, name: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    with suppress(Exception):  # it is there: what is wrong otherwise, the producer says
        admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    admin.close()


def _on_path(folder: Path) -> None:
    """For every process that the stack starts from now on."""
    paths = [str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def _connections(stack: Stack) -> None:
    for name in _WAYS:
        extra = {
            "bootstrap.servers": stack.broker.bootstrap,
            "group.id": name,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        os.environ[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps({"conn_type": "kafka", "extra": extra})


if __name__ == "__main__":
    sys.exit(main("event_to_code", bench))
