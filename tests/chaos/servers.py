"""The brokers and the databases of the harness: real ones, to be killed as a power cut would, and started again."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.stack import ports, processes
from pipelines.stack.kafka import _LOGGING, ApacheKafka
from pipelines.stack.part import run_once
from pipelines.stack.postgres import Postgres, make_database
from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept
from pipelines.stack.supervisor import Program

_LIBC = ctypes.CDLL(None, use_errno=True)


class Server:
    """One program that answers a probe.

    Args:
        program: what to run.
        log: where its output goes.
    """

    def __init__(self, program: Program, log: Path) -> None:
        self._program = program
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of its process, which runs."""
        assert self._process is not None
        return self._process.pid

    def said(self, words: str) -> int:
        """How many lines of its log hold these words."""
        return sum(words in line for line in self._log.read_text("utf-8", "replace").splitlines())

    def start(self, *, wait: bool = True, patience: float = 90.0) -> None:
        """Start it, again and again where it ends at once (a PostgreSQL whose predecessor's children still end)."""
        self._spawn()
        if wait:
            self.wait(patience)

    def wait(self, patience: float = 90.0) -> None:
        """Wait until it answers."""
        end = time.monotonic() + patience
        while (why := self._asked()) is not None:
            if time.monotonic() > end:
                raise AssertionError(f"{self._program.name} is not up after {patience:.0f} s: {why}")
            if not self.running:
                self._spawn()
            time.sleep(0.1)

    def kill(self) -> None:
        """kill -9, its children too."""
        if self._process is None:
            return
        family = [self._process.pid, *processes.descendants(self._process.pid)]
        processes.send(family, signal.SIGKILL)
        self._process.wait(20)
        while any(processes.alive(pid) for pid in family):
            time.sleep(0.01)

    def pause(self) -> None:
        """SIGSTOP: it takes connections and answers nothing."""
        assert self._process is not None
        processes.send([self._process.pid, *processes.descendants(self._process.pid)], signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self._process is not None
        processes.send([self._process.pid, *processes.descendants(self._process.pid)], signal.SIGCONT)

    def _spawn(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._program.argv, stdout=log, stderr=log, start_new_session=True, preexec_fn=_end_with_parent
            )

    def _asked(self) -> str | None:
        assert self._program.probe is not None
        return self._program.probe.ask() if self.running else "it ended"


def _end_with_parent() -> None:
    _LIBC.prctl(1, int(signal.SIGKILL), 0, 0, 0)


def postgres(kept: Kept) -> Server:
    """PostgreSQL with an empty database for the ledger; started."""
    part = Postgres(kept)
    part.prepare()
    [program] = part.programs()
    server = Server(program, kept.folder("logs") / "postgres.log")
    server.start()
    make_database(kept, "careloom")
    return server


def one_broker(kept: Kept) -> Server:
    """Apache Kafka, one node; started."""
    part = ApacheKafka(kept)
    part.prepare()
    [program] = part.programs()
    server = Server(program, kept.folder("logs") / "kafka.log")
    server.start()
    return server


#: Seconds that three brokers may take to start side by side: 20 on a quiet machine, minutes on a crowded one.
_CLUSTER_STARTS = 420.0

_THREE = """\
process.roles=broker,controller
node.id={id}
controller.quorum.bootstrap.servers={controllers}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
log.cleaner.dedupe.buffer.size=4194304
auto.create.topics.enable=false
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""


def three_brokers(kept: Kept) -> tuple[list[Server], str]:
    """Apache Kafka, three nodes that each hold everything and need two of them to take a record; started.

    Returns:
        the nodes, and their bootstrap addresses.
    """
    folder = kept.folder("kafka-cluster")
    chosen: list[int] = []
    while len(chosen) < 6:
        chosen.append(ports.choose(chosen))
    plain, control = chosen[:3], chosen[3:]
    controllers = ",".join(f"127.0.0.1:{port}" for port in control)
    directories = [_name() for _ in range(3)]
    voters = ",".join(f"{i + 1}@127.0.0.1:{control[i]}:{directories[i]}" for i in range(3))
    java, cluster = _java(kept), _name()
    nodes: list[Server] = []
    for i in range(3):
        properties = folder / f"node-{i + 1}.properties"
        settings = {"id": i + 1, "controllers": controllers, "port": plain[i], "controller": control[i]}
        properties.write_text(_THREE.format(**settings, data=folder / f"data-{i + 1}"))
        command = ("format", "-t", cluster, "-c", str(properties), "--initial-controllers", voters)
        log = kept.folder("logs") / f"kafka-{i + 1}.log"
        run_once("formatting a node", (*java, "kafka.tools.StorageTool", *command), log=log)
        probe = Probe("kafka", f"127.0.0.1:{plain[i]}")
        nodes.append(Server(Program(f"kafka-{i + 1}", (*java, "kafka.Kafka", str(properties)), probe), log))
    for node in nodes:
        node.start(wait=False)
    for node in nodes:
        node.wait(_CLUSTER_STARTS)
    return nodes, ",".join(f"127.0.0.1:{port}" for port in plain)


def _name() -> str:
    """A Kafka id: 16 bytes in base64url, and no "-" in front that would be taken for an option."""
    return base64.urlsafe_b64encode(b"c" + uuid.uuid4().bytes[1:]).decode().rstrip("=")


def _java(kept: Kept) -> Sequence[str]:
    """As the development stack's one node, and smaller: there are three of them."""
    part = ApacheKafka(kept)
    part._logging.write_text(_LOGGING, "utf-8")
    smaller = {"-Xms128m": "-Xms64m", "-Xmx256m": "-Xmx192m"}
    program, *rest = (smaller.get(argument, argument) for argument in part._java())
    return [program, "-XX:TieredStopAtLevel=1", *rest]  # they start often, and live for minutes: compiling costs more


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int):
    """A folder with a disk of its own of that size (tmpfs; needs root). Yields nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)), check=True)
    try:
        yield
    finally:
        subprocess.run(("umount", "-l", str(folder)), check=True)
        with contextlib.suppress(OSError):  # logs may be kept beside it
            folder.rmdir()
            folder.parent.rmdir()


def can_mount() -> str | None:
    """Why no small disk can be made here, or None when it can."""
    return None if os.geteuid() == 0 else "only root can mount a small disk"


def until(true: Callable[[], object], what: str, seconds: float = 60.0, every: float = 0.02) -> float:
    """Wait until something holds; returns the seconds it took.

    Raises:
        AssertionError: it never came to hold.
    """
    began = time.monotonic()
    while not true():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
    return time.monotonic() - began
