"""A stack scaled out on one machine, with the benchmarks' fakes for hospital and model, and what it is asked."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import psycopg
from prometheus_client.parser import text_string_to_metric_families

from pipelines.config import load
from pipelines.ledger import Ledger, engine
from pipelines.stack import ports, record
from pipelines.stack.environment import Stack
from pipelines.stack.settings import ModelServer
from plugins import manager
from tests.bench import fakes
from tests.scale_out import parts

SOURCE = "hospital"
TOKEN = "scale-out"
SCENARIO = "pre_visit.triage"
WORKERS = ("worker-1", "worker-2")
DISPATCHERS = ("dispatcher", "dispatcher-2")
PARTITIONS = 6
_FINAL = ("written", "stale", "parked", "discarded")

Say = Callable[[str], None]


class House:
    """PostgreSQL, Apache Kafka, Redis, Airflow with CeleryExecutor and two workers, a gateway, two dispatchers."""

    def __init__(self, say: Say) -> None:
        self._say = say
        # not below the project: PostgreSQL runs as another user where we are root, and has to reach it
        self.folder = Path(tempfile.mkdtemp(prefix="careloom-scale-out-"))
        self.folder.chmod(0o755)
        self._fakes_port = ports.choose()
        self._fakes = fakes.start(self._fakes_port)
        self._stack: Stack | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        hospital = f"http://127.0.0.1:{self._fakes_port}"
        source = {
            "name": SOURCE,
            "fhir_version": "R4",
            "base_url": f"{hospital}/fhir",
            "token": TOKEN,
            "subscription": "none",
            "reconcile_every": 0,
        }
        # one draft of a type for each event, so that a second one is seen as such
        others = [scenario for scenario in manager.load((), ()).scenarios if scenario != SCENARIO]
        overrides = {
            "sources": [source],
            "plugins": {"disabled_scenarios": others},
            "kafka": {"partitions": PARTITIONS},
            "dispatcher": {"batch_size": 10, "max_open_runs": 4},
            # else a few runs would take everything, and no worker could be killed in the middle
            "runner": {"stay_rows": 20},
        }
        redis_port = ports.choose()
        self._stack = Stack(
            self.folder / "state",
            broker="apache",
            model=ModelServer(f"{hospital}/v1", fakes.NAME, "none", stand_in=True),
            fhir=source["base_url"],
            overrides=overrides,
            airflow=parts.celery_settings(redis_port),
            say=self._say,
        )
        self.kept = self._stack.kept
        self.config = load(self._stack.config)
        self._stack.add(parts.redis(self.folder, redis_port))
        self._stack.start(["gateway", "dispatcher", "exporter"])
        for name in WORKERS:
            self._stack.add(parts.worker(name, self._stack.airflow_environment, self.folder))
        self._stack.add(parts.second_dispatcher(self.kept, self._stack.config))
        self._say("two workers and two dispatchers run")

    @property
    def stack(self) -> Stack:
        """The stack."""
        assert self._stack is not None
        return self._stack

    def __enter__(self) -> House:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything and remove what it wrote."""
        if self._stack is not None:
            self._stack.stop()
        self._fakes.terminate()
        self._fakes.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- events -------------------------------------------------------------------------------------------------------

    def send(self, bodies: Mapping[str, bytes], patience: float = 60.0) -> None:
        """Post events, each until it is taken, as a hospital's system would.

        Raises:
            TimeoutError: the gateway does not take one.
        """
        end = time.monotonic() + patience
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/fhir+json"}
        with httpx.Client(headers=headers, timeout=30) as client:
            for name, body in bodies.items():
                while not self._taken(client, body):
                    if time.monotonic() > end:
                        raise TimeoutError(f"the gateway does not take {name}")
                    time.sleep(0.2)

    def _taken(self, client: httpx.Client, body: bytes) -> bool:
        try:
            return client.post(f"{self.config.gateway.url}/fhir/{SOURCE}", content=body).is_success
        except httpx.TransportError:
            return False

    def states(self, tag: str) -> Counter[str]:
        """How many pieces of work of this tag's events are in which state."""
        with psycopg.connect(self.kept.database("careloom")) as ledger:
            rows = ledger.execute(
                "SELECT w.state, count(*) FROM work w JOIN events e USING (event_id)"
                " WHERE e.resource_id LIKE %s GROUP BY 1",
                (f"{tag}-%",),
            ).fetchall()
        return Counter({str(state): int(number) for state, number in rows})

    def drain(self, tag: str, number: int, patience: float) -> bool:
        """Wait until nothing is left to do for this tag's events; whether it came to that."""
        began, told = time.monotonic(), 0.0
        while (now := time.monotonic() - began) < patience:
            states = self.states(tag)
            if sum(states[final] for final in _FINAL) >= number:
                return True
            if now - told > 10:
                told = now
                self._say(f"{dict(states)} of {number}")
            time.sleep(0.5)
        return False

    # --- the account --------------------------------------------------------------------------------------------------

    def written(self) -> dict[str, dict[str, int]]:
        """What the hospital says was created: event -> type -> how often."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._fakes_port}/record", timeout=30) as answer:
            found: dict[str, dict[str, int]] = json.loads(answer.read())["written"]
        return found

    def unaccounted(self) -> int:
        """What the ledger's own sum misses."""
        made = engine(self.config.ledger.url.get_secret_value())
        try:
            return Ledger(made).account().unaccounted
        finally:
            made.dispose()

    def tasks_by_worker(self) -> Counter[str]:
        """Finished tasks by the worker that ran them, as Airflow noted it."""
        with psycopg.connect(self.kept.database("airflow")) as airflow:
            rows = airflow.execute(
                "SELECT unixname, count(*) FROM task_instance WHERE state = 'success' GROUP BY 1"
            ).fetchall()
        return Counter({str(name): int(number) for name, number in rows})

    def dispatcher_figures(self, name: str) -> dict[str, float]:
        """Records that a dispatcher consumed, runs that it made, and events in them, since its start."""
        running = record.read(self.stack.state_dir)
        assert running is not None
        probe = running.programs[name].probe
        assert probe is not None
        text = httpx.get(probe.target, timeout=10).text
        sums: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] += sample.value
        names = {
            "records": "careloom_dispatcher_records_total",
            "runs": "careloom_dispatcher_batch_items_count",
            "events": "careloom_dispatcher_batch_items_sum",
        }
        return {label: sums[sample] for label, sample in names.items()}

    def kill(self, program: str) -> int:
        """kill -9 every process of a program, newest first; returns how many there were. It is started again."""
        pids = self.stack.pids(program)
        for pid in reversed(pids):
            if pid in self.stack.pids(program):
                self.stack.kill(program, pid)
        return len(pids)


def facts(house: House) -> dict[str, Any]:
    """What ran, for the report."""
    return {
        "executor": "CeleryExecutor, Redis",
        "broker": house.stack.broker.name,
        "partitions": PARTITIONS,
        "workers": len(WORKERS),
        "slots of a worker": parts.CONCURRENCY,
        "dispatchers": len(DISPATCHERS),
    }
