"""Stack: the whole development stack on one machine, as `careloom up`, `careloom demo` and the tests use it.

    with Stack(Path("state"), broker="apache", model="stand-in") as stack:
        stack.start()
        stack.kill("gateway")  # comes back by itself
        stack.wait_healthy("gateway")

A state folder keeps ports, secrets and data from one start to the next; one stack at a time runs in it.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Any

from pipelines.errors import StackError
from pipelines.stack import choice, processes, record
from pipelines.stack.airflow import Airflow
from pipelines.stack.fhir import Hospital, other_hospital
from pipelines.stack.hapi import Hapi
from pipelines.stack.own import Ledger, own_parts
from pipelines.stack.part import PROJECT, Part
from pipelines.stack.ports import Reservation
from pipelines.stack.postgres import Postgres
from pipelines.stack.settings import Kept, ModelServer, configuration, keep, write_configuration
from pipelines.stack.supervisor import Program, Supervisor

#: The pid of a program that was taken down.
_NOBODY = 0


class Stack:
    """The development stack.

    Args:
        state_dir: everything it writes goes there.
        broker: "apache", "tansu", a bootstrap address, or None for the best that can be had.
        model: "vllm", "stand-in", a `ModelServer`, or None for the best that can be had.
        fhir: base URL of another FHIR R4 server; None starts one.
        hapi: whether HAPI FHIR is started as a second source.
        overrides: merged last into the configuration, table by table (`{"dispatcher": {"linger": 0.05}}`).
        usual_ports: prefer well-known ports (8080, 9092 ...) to random ones.
        dags: Airflow's DAG folder.
        airflow: environment variables that replace or join those of Airflow's processes.
        say: told each step, with the seconds since the start.

    Attributes:
        config: the `careloom.toml` that it wrote.
        kept: its ports and secrets.
        broker, model, monitor, airflow_metrics: what was chosen, and why.

    Raises:
        StackError: another process runs a stack in this folder, or what was asked for cannot be had.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        broker: str | None = None,
        model: str | ModelServer | None = None,
        fhir: str | None = None,
        hapi: bool = False,
        overrides: Mapping[str, Any] | None = None,
        usual_ports: bool = False,
        dags: Path = PROJECT / "dags",
        airflow: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._say = say
        self.state_dir = state_dir.absolute()
        self._hold = record.Hold(self.state_dir)
        try:
            stale = record.read(self.state_dir)
            if stale is not None:  # its supervisor was killed; the guardian has ended its processes, or is about to
                processes.end(stale.stack_id)
            self.kept: Kept = keep(self.state_dir, usual_ports=usual_ports)
            self._reserved = Reservation(self.kept.ports.values())
            self.broker = choice.broker(self.kept, broker)
            self.model = choice.model(self.kept, model)
            self.airflow_metrics = choice.airflow_metrics(self.kept)
            measured = self.airflow_metrics.part is not None
            self.monitor = choice.monitor(self.kept, real_model=not self.model.server.stand_in, airflow=measured)
            hospitals: list[Hospital | Hapi] = [] if fhir else [Hospital(self.kept)]
            hospitals += [Hapi(self.kept)] if hapi else []
            sources = [hospital.source() for hospital in hospitals]
            if fhir:
                sources.insert(0, other_hospital(fhir, self.kept))
            data = configuration(
                self.kept,
                bootstrap=self.broker.bootstrap,
                model=self.model.server,
                sources=sources,
                overrides=overrides,
            )
            self.config: Path = write_configuration(self.kept, data)
            self._airflow = Airflow(self.kept, self.config, dags, airflow, metrics=measured)
            self._parts = {part.name: part for part in self._all_parts(hospitals)}
        except BaseException:
            self._hold.release()
            raise
        self._id = uuid.uuid4().hex
        self._part_of: dict[str, str] = {}
        self._brought_up: dict[str, Future[None]] = {}
        self._out: dict[str, Program] = {}
        self._began = time.time()
        self._lock = threading.Lock()
        self._supervisor = Supervisor(self._id, self.kept.folder("logs"), self._write_record)

    def _all_parts(self, hospitals: Sequence[Part]) -> Iterable[Part]:
        chosen = (self.broker.part, self.model.part, self.monitor.part, self.airflow_metrics.part)
        names = tuple(hospital.name for hospital in hospitals)
        if self.broker.part is not None:
            names = ("kafka", *names)
        return (
            Postgres(self.kept),
            Ledger(self.kept),
            *(part for part in chosen if part is not None),
            *hospitals,
            self._airflow,
            *own_parts(self.kept, self.config, outside=names),
        )

    # --- starting and stopping ----------------------------------------------------------------------------------------

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of all parts of this stack."""
        return tuple(self._parts)

    def start(self, parts: Sequence[str] | None = None) -> None:
        """Start parts (all of them by default) and whatever they need, independent ones side by side.

        May be called again for more parts, also by another thread while a first call still waits.

        Raises:
            StackError: one of them does not come up; everything is stopped then.
        """
        names = self._closure(self.parts if parts is None else parts)
        with self._lock:
            new = [name for name in names if name not in self._brought_up]
            self._brought_up.update({name: Future() for name in new})
        began = time.monotonic()
        with ThreadPoolExecutor(max_workers=len(new) or 1, thread_name_prefix="start") as pool:
            for name in new:
                pool.submit(self._bring_up, name, began)
            try:
                done, _ = wait([self._brought_up[name] for name in names], return_when=FIRST_EXCEPTION)
                for one in done:
                    one.result()
            except BaseException:
                self.stop()  # which also ends the waiting of the others
                raise
        self._write_record()

    def _closure(self, parts: Iterable[str]) -> list[str]:
        """The parts and all that they need."""
        found: list[str] = []
        queue = list(parts)
        while queue:
            name = queue.pop(0)
            if name not in self._parts:
                raise StackError(f"no part named {name!r}; there are {', '.join(self._parts)}")
            if name not in found:
                found.append(name)
                queue += self._parts[name].needs
        return found

    def _bring_up(self, name: str, began: float) -> None:
        part = self._parts[name]
        try:
            for need in part.needs:
                self._brought_up[need].result()
            part.prepare()
            programs = part.programs()
            self._part_of.update({program.name: name for program in programs})
            with ThreadPoolExecutor(max_workers=len(programs) or 1, thread_name_prefix=name) as pool:
                list(pool.map(self._supervisor.start, programs))
        except BaseException as error:  # noqa: BLE001  # raised by `start`, which waits for this
            self._brought_up[name].set_exception(error)
            return
        self._say(f"{name} ready after {time.monotonic() - began:.1f} s")
        self._brought_up[name].set_result(None)

    def _up(self) -> list[str]:
        brought_up = list(self._brought_up.items())
        return [name for name, one in brought_up if one.done() and one.exception() is None]

    def stop(self) -> None:
        """Stop everything; afterwards no process of this stack is left. May be called twice."""
        self._supervisor.stop()
        if self._hold.held:
            (self.state_dir / "stack.json").unlink(missing_ok=True)
            self._reserved.release()
            self._hold.release()

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # --- while it runs ------------------------------------------------------------------------------------------------

    @property
    def programs(self) -> tuple[str, ...]:
        """Names of the running programs: what `kill`, `restart`, `pids` and `log` take."""
        return tuple(self._supervisor.programs())

    @property
    def airflow_environment(self) -> Mapping[str, str]:
        """What every process of this stack's Airflow is told."""
        return self._airflow.environment()

    def add(self, program: Program) -> None:
        """Keep one more program running beside the parts, and wait until it is healthy.

        Raises:
            StackError: it does not come up.
        """
        self._supervisor.start(program)

    def restart(self, program: str) -> None:
        """Stop a program in an orderly way, start it again and wait until it is healthy."""
        self._supervisor.restart(program)

    def kill(self, program: str, pid: int | None = None) -> None:
        """kill -9 a program, or one of its processes; the supervisor starts the program again."""
        self._supervisor.kill(program, pid)

    def pids(self, program: str) -> list[int]:
        """Living processes of a program, its own first."""
        return self._supervisor.pids(program)

    def take_down(self, program: str) -> None:
        """Stop a program and leave it down (an outage) until `bring_back`; `careloom status` names it."""
        self._out[program] = self._supervisor.stop_one(program)
        self._write_record()

    def bring_back(self, program: str) -> None:
        """End the outage and wait until the program is healthy."""
        self._supervisor.start(self._out.pop(program))

    @property
    def out(self) -> tuple[str, ...]:
        """Programs that were taken down."""
        return tuple(self._out)

    def wait_healthy(self, *programs: str) -> None:
        """Wait until these programs (all by default) answer.

        Raises:
            StackError: one does not.
        """
        for name in programs or self.programs:
            self._supervisor.wait_healthy(name)

    def restarts(self, program: str) -> int:
        """How often a program was restarted after a crash."""
        return self._supervisor.programs()[program].restarts

    def log(self, program: str) -> Path:
        """A program's log file."""
        return self._supervisor.log(program)

    @property
    def addresses(self) -> dict[str, str]:
        """Label -> what to open, of the parts that are up."""
        up = self._up()
        ordered = (self._parts[name] for name in self.parts if name in up)
        return {label: address for part in ordered for label, address in part.addresses().items()}

    def _write_record(self) -> None:
        running = {
            name: record.Running(
                part=self._part_of.get(name, name),
                pid=seen.pid,
                restarts=seen.restarts,
                started=seen.started,
                log=str(self.log(name)),
                probe=seen.program.probe,
            )
            for name, seen in self._supervisor.programs().items()
        }
        running |= {
            name: record.Running(self._part_of.get(name, name), _NOBODY, 0, 0.0, str(self.log(name)), program.probe)
            for name, program in list(self._out.items())
        }
        chosen = {
            "broker": f"{self.broker.name}: {self.broker.why}",
            "model": f"{self.model.server.name}: {self.model.why}",
            "prometheus": self.monitor.why,
            "airflow's metrics": self.airflow_metrics.why,
        }
        with self._lock:
            record.write(
                self.state_dir,
                record.Record(
                    stack_id=self._id,
                    supervisor=self._supervisor.pid,
                    started=self._began,
                    config=str(self.config),
                    programs=running,
                    addresses=self.addresses,
                    chosen=chosen,
                    ready=len(self._up()) == len(self._brought_up) > 0,
                ),
            )
