"""A house to do chaos to: real Kafka, PostgreSQL, gateway, dispatchers and tasks; Airflow, hospital and model are small
stand-ins that remember everything. Whatever of careloom dies is started again at once, as a supervisor would."""

from __future__ import annotations

import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import servers
from airflow_stand_in import PASSWORD, AirflowStandIn
from cases import SCENARIOS, SOURCE, Cases
from forks import Child, Zygote
from hospital_fake import Hospital
from kafka import KafkaProducer
from model_fake import NAME, ModelFake
from sender import Sender
from sqlalchemy import text

from pipelines.config import load
from pipelines.ledger import Ledger, engine, migrate
from pipelines.stack import ports
from pipelines.stack.settings import keep, toml, write_private
from plugins import manager

_TOKEN = "token-of-the-ward"

#: Waits are short, so that a thousand faults fit into minutes; what they mean is the same. Attempts are more than the
#: shipped four: where three tasks in five are killed, four in a row are not rare, and a parked row has no draft.
_SETTINGS: dict[str, dict[str, Any]] = {
    "dispatcher": {
        "batch_size": 8,
        "max_open_runs": 6,
        "linger": 0.05,
        "reap_every": 0.3,
        "backoff": 0.05,
        "backoff_cap": 0.5,
        "max_attempts": 12,
    },
    # runs stay for a moment only: a fault that is planned for a new task must find one
    "runner": {"lease": 6.0, "concurrency": 8, "stay": 0.3, "stay_life": 1.0},
    "model": {"name": NAME, "version": "1", "timeout": 2.0, "attempts": 2},
}

#: Of a task that is to take one further row, however long that is in coming; `House.staying` has it.
_STAYS_FOR_ONE = {"stay": 60.0, "stay_life": 60.0, "stay_rows": 1}


class House:
    """All of it. Use it as a context manager.

    Args:
        brokers: 1, or 3 for a cluster.
        dispatchers: how many.
        settings: merged over the harness's own, table by table.
        env: of careloom's processes.
        state: folder for everything; made anew where None.
        say: told what happens.
        slots: tasks that the stand-in for Airflow runs at the same time.
    """

    def __init__(
        self,
        *,
        brokers: int = 1,
        dispatchers: int = 1,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        env: Mapping[str, str] | None = None,
        slots: int = 4,
        state: Path | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.say = say
        self._brokers = brokers
        self._dispatchers = dispatchers
        self._settings = settings or {}
        self._env = dict(env or {})
        self._slots = slots
        self._closing = ExitStack()
        self.state = state or Path(tempfile.mkdtemp(prefix="careloom-chaos-"))
        self.state.chmod(0o755)  # PostgreSQL runs as a user of its own
        self.cases = Cases()
        self.plan: Callable[[str], str] = lambda role: ""
        self.ended: Callable[[Child], None] = lambda child: None
        self.forks: dict[str, Child] = {}
        self.deaths: Counter[str] = Counter()
        self._open = True
        self._supervising = threading.RLock()

    def __enter__(self) -> House:
        try:
            self._build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with self._supervising:
            self._open = False
        self._closing.close()
        if not self.broken:
            shutil.rmtree(self.state, ignore_errors=True)

    #: Set where the folder with the logs is to be kept.
    broken = False

    def _build(self) -> None:
        closing = self._closing
        kept = keep(self.state, usual_ports=False)
        self.kept = kept
        self.postgres = servers.postgres(kept)
        closing.callback(self.postgres.kill)
        if self._brokers == 1:
            self.kafka = [servers.one_broker(kept)]
            bootstrap = f"127.0.0.1:{kept.ports['kafka']}"
        else:
            self.kafka, bootstrap = servers.three_brokers(kept)
        for node in self.kafka:
            closing.callback(node.kill)
        self.hospital = Hospital()
        closing.callback(self.hospital.close)
        self.model = ModelFake()
        closing.callback(self.model.close)
        self.airflow = AirflowStandIn(SCENARIOS, slots=self._slots)
        closing.callback(self.airflow.close)
        self.metrics_ports = [kept.ports["dispatcher"]]
        while len(self.metrics_ports) < max(2, self._dispatchers):
            self.metrics_ports.append(ports.choose([*kept.ports.values(), *self.metrics_ports]))
        self.files = [
            self._configure(f"careloom-{number}", bootstrap, {"dispatcher": {"metrics_port": port}})
            for number, port in enumerate(self.metrics_ports)
        ]
        self.staying = self._configure("careloom-staying", bootstrap, {"runner": _STAYS_FOR_ONE})
        self.config = load(self.files[0])
        migrate(self.config.ledger.url.get_secret_value())
        self.engine = engine(self.config.ledger.url.get_secret_value())
        closing.callback(self.engine.dispose)
        self.ledger = Ledger(self.engine)
        self.zygote = self.another_zygote(self._env)
        self.airflow.zygote = self.zygote
        self.airflow.chaos.plan = lambda step: self.plan(step)
        self.airflow.chaos.task_ended = self._note
        self.gateway_zygote = self.zygote
        self.dispatcher_zygote = self.zygote
        self._start("gateway", 0)
        for number in range(self._dispatchers):
            self._start("dispatcher", number)
        self.sender = Sender(self.config.gateway.url, _TOKEN)
        closing.callback(self.sender.close)

    def another_zygote(self, env: Mapping[str, str]) -> Zygote:
        """A parent of processes with an environment of its own; closed with the house."""
        made = Zygote({"CARELOOM_CONFIG": str(self.files[0]), **env}, self.kept.folder("logs"))
        self._closing.callback(made.close)
        return made

    def _configure(self, name: str, bootstrap: str, its_own: Mapping[str, Mapping[str, Any]]) -> Path:
        data: dict[str, Any] = {
            "state_dir": ".",
            "locale": "en",
            "patient_salt": "salt",
            "sources": [
                {
                    "name": SOURCE,
                    "fhir_version": "R4",
                    "base_url": self.hospital.url,
                    "token": _TOKEN,
                    "subscription": "none",
                    "reconcile_every": 0,  # what the sender was told is all there is: nothing is found by searching
                }
            ],
            "gateway": {"port": self.kept.ports["gateway"]},
            "kafka": {"bootstrap": bootstrap, "partitions": 4, "replication": self._brokers},
            "ledger": {"url": self.kept.database("careloom", "psycopg")},
            "airflow": {"url": self.airflow.url, "password": PASSWORD},
            "exporter": {"port": self.kept.ports["exporter"]},
            "model": {"url": self.model.url},
            "plugins": {"disabled_scenarios": [name for name in manager.load().scenarios if name not in SCENARIOS]},
        }
        for over in (_SETTINGS, self._settings, its_own):
            for table, values in over.items():
                data[table] = {**data.get(table, {}), **values}
        file = self.state / f"{name}.toml"
        write_private(file, toml(data))
        return file

    # --- careloom's own processes -------------------------------------------------------------------------------------

    def _start(self, role: str, number: int) -> None:
        """Start one, and start it again whenever it ends."""
        name = f"{role}-{number}"

        def ended(child: Child) -> None:
            self._note(child)
            again = threading.Timer(0.0 if child.killed else 0.2, start_again, (child,))
            again.daemon = True
            again.start()

        def start_again(child: Child) -> None:
            with self._supervising:
                if self._open and self.forks.get(name) is child:
                    self._fork(role, number, name, ended)

        with self._supervising:
            self._fork(role, number, name, ended)

    def _fork(self, role: str, number: int, name: str, ended: Callable[[Child], None]) -> None:
        zygote = self.gateway_zygote if role == "gateway" else self.dispatcher_zygote
        env = {"CARELOOM_CONFIG": str(self.files[number])}
        self.forks[name] = zygote.fork(role, plan=self.plan(role), env=env, on_end=ended)

    def _note(self, child: Child) -> None:
        if child.killed and child.plan:
            self.deaths[child.plan.partition("@")[0]] += 1
        self.ended(child)

    def bring(self, role: str, number: int) -> None:
        """Start one more of that role (a second dispatcher)."""
        self._start(role, number)

    def take_away(self, role: str, number: int) -> None:
        """kill -9 one, and leave it dead."""
        with self._supervising:
            child = self.forks.pop(f"{role}-{number}")
        child.signal(signal.SIGKILL)
        child.ended.wait(20)

    def kill(self, role: str, number: int = 0) -> None:
        """kill -9 one; it is started again at once."""
        with self._supervising:
            child = self.forks[f"{role}-{number}"]
        child.signal(signal.SIGKILL)

    def poison(self, records: Sequence[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]]) -> None:
        """Write records (key, value, headers) into the topic of events, past the gateway."""
        producer = KafkaProducer(bootstrap_servers=self.config.kafka.bootstrap, acks="all", max_block_ms=30_000)
        try:
            for key, value, headers in records:
                producer.send(self.config.kafka.topic, key=key, value=value, headers=headers)
            producer.flush(timeout=30)
        finally:
            producer.close(timeout=30)

    # --- looking ------------------------------------------------------------------------------------------------------

    def states(self, event_ids: Sequence[str]) -> dict[str, list[tuple[str, str, str]]]:
        """Event id -> (scenario, state, error class) of each of its pieces of work; events without any are left out."""
        statement = text(
            "SELECT event_id, scenario, state, coalesce(error_class, '') AS error_class FROM work"
            " WHERE event_id = ANY(CAST(:ids AS text[]))"
        )
        found: dict[str, list[tuple[str, str, str]]] = {}
        with self.engine.connect() as connection:
            for row in connection.execute(statement, {"ids": list(event_ids)}):
                found.setdefault(row.event_id, []).append((row.scenario, row.state, row.error_class))
        return found
