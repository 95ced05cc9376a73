"""The project's own stack with the fakes in place of hospital and model: what the benchmarks of delivery run in."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psycopg

from pipelines.config import load
from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.errors import AirflowError
from pipelines.ledger import Ledger, engine
from pipelines.stack import ports, record
from pipelines.stack.environment import Stack
from pipelines.stack.part import PROJECT
from pipelines.stack.settings import ModelServer
from plugins.manager import load as load_plugins
from tests.bench import fakes
from tests.bench.accounting import Meter
from tests.bench.figures import Say

SCENARIO = "pre_visit.triage"
SOURCE = "hospital"
#: Requests at the gateway at the same time, as from several systems of a hospital.
SENDERS = 32
#: Appointments of one patient: order has to be kept among them.
PER_PATIENT = 2

#: The times of a row, in the order in which it passes them.
HOPS = ("received", "durable", "matched", "dispatched", "started", "context", "answered", "guarded", "written")


#: Seconds without one more event done after which no more are waited for.
_STALLED = 90.0
_DONE = "SELECT count(*) FROM work JOIN events USING (event_id) WHERE finished_at IS NOT NULL AND resource_id LIKE %s"


@dataclass(frozen=True, slots=True)
class Row:
    """One piece of work as the ledger has it; UNIX times, None where it has not come so far."""

    event: str
    state: str
    run_id: str | None
    times: Mapping[str, float | None]


class House:
    """A stack that runs; close it.

    Args:
        say: told each step.
        config: merged into careloom's configuration.
        parts: what is started beside what they need.
        airflow: environment variables that replace those of our Airflow.
        environment: is told the stack before anything is started; for what depends on its ports.

    Attributes:
        stack, dags: the stack, and the folder from which its Airflow takes DAGs.
        fake: the process that stands for hospital and model.
    """

    def __init__(
        self,
        say: Say,
        *,
        config: Mapping[str, Any] | None = None,
        parts: Sequence[str] = ("gateway", "dispatcher", "exporter"),
        airflow: Mapping[str, str] | None = None,
        environment: Callable[[Stack], None] = lambda stack: None,
    ) -> None:
        self._say = say
        # not below the project: PostgreSQL runs as another user where we are root, and has to reach it
        self.folder = Path(tempfile.mkdtemp(prefix="careloom-bench-"))
        self.folder.chmod(0o755)
        self.dags = self.folder / "dags"
        shutil.copytree(PROJECT / "dags", self.dags, ignore=shutil.ignore_patterns("__pycache__"))
        self._port = ports.choose()
        self.fake = fakes.start(self._port)
        self._stack: Stack | None = None
        try:
            self._start(config or {}, parts, airflow, environment)
        except BaseException:
            self.close()
            raise

    def _start(
        self,
        config: Mapping[str, Any],
        parts: Sequence[str],
        airflow: Mapping[str, str] | None,
        environment: Callable[[Stack], None],
    ) -> None:
        source = {
            "name": SOURCE,
            "fhir_version": "R4",
            "base_url": f"http://127.0.0.1:{self._port}/fhir",
            "token": "bench",
            "subscription": "none",
            "reconcile_every": 0,
        }
        others = sorted(set(load_plugins().scenarios) - {SCENARIO})  # one event is one piece of work
        self._stack = Stack(
            self.folder / "state",
            model=ModelServer(f"http://127.0.0.1:{self._port}/v1", fakes.NAME, "none", stand_in=True),
            fhir=source["base_url"],
            overrides={"sources": [source], "plugins": {"disabled_scenarios": others}, **config},
            dags=self.dags,
            airflow=airflow,
            say=self._say,
        )
        environment(self._stack)
        self.stack.start(parts)
        self.config = load(self.stack.config)
        if "dispatcher" in parts:
            self.await_dags(SCENARIO)

    @property
    def stack(self) -> Stack:
        """The stack."""
        assert self._stack is not None
        return self._stack

    def __enter__(self) -> House:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop everything and remove what it wrote."""
        if self._stack is not None:
            self._stack.stop()
        self.fake.terminate()
        self.fake.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- Airflow ------------------------------------------------------------------------------------------------------

    def await_dags(self, *wanted: str, patience: float = 120.0) -> None:
        """Wait until Airflow can run these.

        Raises:
            TimeoutError: it cannot.
        """
        with psycopg.connect(self.stack.kept.database("airflow"), autocommit=True) as airflow:
            self.until(
                lambda: (
                    set(wanted)
                    <= {
                        name
                        for (name,) in airflow.execute("SELECT dag_id FROM dag WHERE NOT is_stale AND NOT is_paused")
                    }
                ),
                patience,
                f"Airflow does not have {', '.join(wanted)}",
            )

    def trigger(self, api: AirflowApi, dag: str, run_id: str) -> None:
        """Ask for a run, as often as a busy Airflow needs."""
        for _ in range(10):
            try:
                api.trigger(dag, run_id)
            except AirflowError:
                time.sleep(0.5)
            else:
                return
        raise TimeoutError(f"Airflow does not take a run of {dag}")

    # --- events -------------------------------------------------------------------------------------------------------

    def send(self, events: Mapping[str, bytes]) -> float:
        """Post events to the gateway, many at a time, each until it is taken; returns when the first was sent."""
        began = time.time()
        asyncio.run(self._send(events))
        return began

    async def _send(self, events: Mapping[str, bytes]) -> None:
        url = f"{self.config.gateway.url}/fhir/{SOURCE}"
        headers = {"authorization": "Bearer bench", "content-type": "application/fhir+json"}
        waiting = list(events.values())[::-1]
        async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=SENDERS)) as session:

            async def sender() -> None:
                while waiting:
                    body = waiting.pop()
                    async with session.post(url, data=body) as answer:
                        if answer.status >= 500:  # not now: as a hospital's system would, once more
                            waiting.append(body)
                            await asyncio.sleep(0.1)
                        elif answer.status >= 300:
                            raise RuntimeError(f"the gateway answered {answer.status}: {await answer.text()}")

            async with asyncio.TaskGroup() as group:
                for _ in range(SENDERS):
                    group.create_task(sender())

    def rows(self, tag: str) -> list[Row]:
        """The work of all events of a tag."""
        columns = ", ".join(f"w.{hop}_at" for hop in HOPS)
        with psycopg.connect(self.stack.kept.database("careloom")) as ledger:
            found = ledger.execute(
                f"SELECT e.resource_id, w.state, w.run_id, {columns} FROM work w JOIN events e USING (event_id)"
                " WHERE e.resource_id LIKE %s ORDER BY w.id",
                (f"{tag}-%",),
            ).fetchall()
        return [Row(one[0], one[1], one[2], dict(zip(HOPS, map(_unix, one[3:]), strict=True))) for one in found]

    def drain(self, tag: str, number: int) -> list[Row]:
        """Wait until all events of a tag are done with, or none has been for a while; returns their rows."""
        done, moved, told = 0, time.monotonic(), time.monotonic()
        with psycopg.connect(self.stack.kept.database("careloom"), autocommit=True) as ledger:
            while done < number and (now := time.monotonic()) - moved < _STALLED:
                time.sleep(0.2 if number <= 200 else 1.0)
                before, (done,) = done, ledger.execute(_DONE, (f"{tag}-%",)).fetchone() or (0,)
                moved = now if done > before else moved
                if now - told > 10:
                    told = now
                    self._say(f"{done} of {number} done")
        return self.rows(tag)

    def warm_up(self) -> None:
        """Airflow's first tasks take seconds.

        Raises:
            RuntimeError: nothing comes through; there is nothing to measure.
        """
        for n in range(2):
            self.send(appointments(f"warm{n}", 4))
            rows = self.drain(f"warm{n}", 4)
            if [row.state for row in rows] != ["written"] * 4:
                raise RuntimeError(f"the first events do not come through: {Counter(row.state for row in rows)}")
        self._say("warm")

    def let_no_run_stay(self) -> None:
        """Have the runs that stay leave, and wait until none is open: the next event finds nothing that runs.

        Raises:
            RuntimeError: a run stays open.
        """
        made = engine(self.config.ledger.url.get_secret_value())
        try:
            ledger = Ledger(made)
            ledger.withdraw()
            end = time.monotonic() + 30
            while ledger.open_runs():
                if time.monotonic() > end:
                    raise RuntimeError("a run is open for 30 s although nothing is to be done")
                time.sleep(0.1)
        finally:
            made.dispose()

    def open_runs(self) -> list[str]:
        """Ids of the runs that the ledger has open."""
        with psycopg.connect(self.stack.kept.database("careloom")) as ledger:
            return [run_id for (run_id,) in ledger.execute("SELECT run_id FROM runs WHERE closed_at IS NULL")]

    def standing_runs(self) -> int:
        """Runs that began without rows and stay; -1 while others are open."""
        with psycopg.connect(self.stack.kept.database("careloom")) as ledger:
            found = ledger.execute(
                "SELECT size, coalesce(stays_until > now(), false) FROM runs WHERE closed_at IS NULL"
            ).fetchall()
        return -1 if any(size for size, _ in found) else sum(stays for _, stays in found)

    def record(self) -> dict[str, Any]:
        """What the fake hospital says was written."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/record", timeout=30) as answer:
            found: dict[str, Any] = orjson.loads(answer.read())
        return found

    # --- accounting ---------------------------------------------------------------------------------------------------

    def roots(self) -> dict[str, int]:
        """Program -> its first process, the fakes included."""
        running = record.read(self.stack.state_dir)
        assert running is not None
        return {name: one.pid for name, one in running.programs.items()} | {"fakes": self.fake.pid}

    def meter(self, every: float = 1.0) -> Meter:
        """Accounts for every program of the stack."""
        return Meter(self.roots, every)

    def until(self, holds: Callable[[], bool], patience: float, what: str) -> None:
        end = time.monotonic() + patience
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"{what} within {patience:.0f} s")
            time.sleep(0.2)


def appointments(tag: str, number: int) -> dict[str, bytes]:
    """Resource id -> an Appointment that asks for triage; `PER_PATIENT` of each patient."""
    return {f"{tag}-{n}": _appointment(f"{tag}-{n}", f"{tag}-p{n // PER_PATIENT}") for n in range(number)}


def _appointment(identifier: str, patient: str) -> bytes:
    return orjson.dumps(
        {
            "resourceType": "Appointment",
            "id": identifier,
            "meta": {"versionId": "1", "lastUpdated": "2026-11-22T08:00:00.000Z"},
            "status": "booked",
            "description": "咳嗽三天,伴低热,无胸痛",
            "start": "2026-11-23T09:00:00Z",
            "end": "2026-11-23T09:15:00Z",
            "participant": [{"actor": {"reference": f"Patient/{patient}"}, "status": "accepted"}],
        }
    )


def _unix(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
