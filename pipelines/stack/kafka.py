"""Apache Kafka itself, one node (KRaft), from a folder of jars.

The jars are looked for in KAFKA_HOME, then in ../shared/kafka beside the project, then in .careloom/kafka, where
scripts/bootstrap has Maven put them by deploy/kafka/pom.xml. The data stays in the state folder through stops and
crashes.
"""

from __future__ import annotations

import base64
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.errors import StackError
from pipelines.stack import java
from pipelines.stack.part import PROJECT, run_once
from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept
from pipelines.stack.supervisor import Program

_FETCHED = PROJECT / ".careloom" / "kafka"
#: Where scripts/bootstrap leaves the reason when Maven could not bring them.
_EXCUSE = PROJECT / ".careloom" / "stamps" / "kafka.failed"

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
# topics are made on purpose, with the partitions they need
auto.create.topics.enable=false
# one node: everything has one copy
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# a group's first member need not wait for others that will not come
group.initial.rebalance.delay.ms=0
# a broker killed -9 is let in again after 2 s instead of 9: up in 4.3 s instead of 12
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
log.retention.hours=168
"""

_LOGGING = """\
rootLogger.level=warn
rootLogger.appenderRef.c.ref=C
appender.c.type=Console
appender.c.name=C
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%d %p %c{1} %m%n
"""


def find_jars() -> Path | None:
    """The folder with Kafka's jars, or None. KAFKA_HOME, when set, is the only place looked at."""
    home = os.environ.get("KAFKA_HOME")
    places = (Path(home),) if home else (PROJECT.parent / "shared" / "kafka", _FETCHED)
    return next((found for place in places if (found := java.jars(place)) is not None), None)


def missing() -> str | None:
    """Why Apache Kafka cannot be run here and what to do, or None when it can."""
    if why := java.missing():
        return why
    if find_jars() is not None:
        return None
    tried = f" ({_EXCUSE.read_text('utf-8').splitlines()[0]})" if _EXCUSE.exists() else ""
    return (
        f"no Kafka jars{tried}: set KAFKA_HOME to an unpacked Apache Kafka 4, or run `make setup` where Maven is"
        " installed (apt-get install maven) and reaches Maven Central"
    )


class ApacheKafka:
    """The broker."""

    name = "kafka"
    needs: tuple[str, ...] = ()

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self._folder = kept.folder("kafka")
        self._properties = self._folder / "server.properties"
        self._logging = self._folder / "log4j2.properties"

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self._kept.ports['kafka']}"

    def prepare(self) -> None:
        """Write the settings, and format the data folder once."""
        if why := missing():
            raise StackError(why)
        data = self._folder / "data"
        ports = self._kept.ports
        self._properties.write_text(
            _PROPERTIES.format(port=ports["kafka"], controller=ports["kafka-controller"], data=data), "utf-8"
        )
        self._logging.write_text(_LOGGING, "utf-8")
        if not (data / "meta.properties").exists():
            # a leading "-" would be taken for an option
            cluster = base64.urlsafe_b64encode(b"c" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
            command = ("kafka.tools.StorageTool", "format", "--standalone", "-t", cluster, "-c", str(self._properties))
            run_once("formatting Kafka's data folder", (*self._java(), *command), log=self._log)

    def programs(self) -> Sequence[Program]:
        """The one node."""
        return (
            Program(
                name="kafka",
                argv=(*self._java(), "kafka.Kafka", str(self._properties)),
                probe=Probe("kafka", self.bootstrap),
                grace=15,
            ),
        )

    def addresses(self) -> Mapping[str, str]:
        """The bootstrap address."""
        return {"Kafka": self.bootstrap}

    @property
    def _log(self) -> Path:
        return self._kept.folder("logs") / "kafka.log"

    def _java(self) -> tuple[str, ...]:
        program, libraries = java.find(), find_jars()
        if program is None or libraries is None:
            raise StackError(missing() or "Kafka's jars are gone")
        heap = ("-Xms128m", "-Xmx256m", "-XX:+UseSerialGC")
        return (program, *heap, f"-Dlog4j2.configurationFile={self._logging}", "-cp", f"{libraries}/*")
