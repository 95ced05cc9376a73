"""The house in which faults are made: the whole stack on real components, a steady trickle of events, and a pager.

with House(folder, scale=1.0, say=print) as house:
    house.front("refuse")
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import yaml
from sqlalchemy import Engine, text

from pipelines.config import ENVIRONMENT_VARIABLE, load
from pipelines.ledger import Ledger, engine
from pipelines.stack import ports
from pipelines.stack.environment import Stack
from pipelines.stack.part import PROJECT
from pipelines.stack.postgres import _binaries
from pipelines.stack.probes import Probe
from pipelines.stack.settings import USUAL_PORTS, Kept, ModelServer, keep
from pipelines.stack.stand_in import NAME
from pipelines.stack.supervisor import Program
from tests.fault_table import letters
from tests.fault_table.flow import EVERY, EXAM, NOTE, Flow, Hospital
from tests.fault_table.history import remember
from tests.fault_table.pager import Telephone, Watch, alertmanager
from tests.fault_table.scaling import scaled

#: Bytes of the little file system that a fault fills.
SMALL_DISK = 16 * 1024 * 1024
#: Seconds between two letters of a ward before the faults.
RARELY = 3600.0
#: Rows that wait beyond which Kafka is not read: no fault but the one that is about it makes as many.
MAX_WAITING = 200
#: Rows of one run.
BATCH = 50
_UNFINISHED = {"waiting", "dispatched", "running", "inferred"}


@dataclass(frozen=True)
class Places:
    """Folders of one run: of the house, of its stack, and what its DAG and small disk are in."""

    house: Path

    @property
    def state(self) -> Path:
        """Where `careloom status` looks when it is called in `house`."""
        return self.house / ".careloom" / "stack"

    @property
    def dags(self) -> Path:
        """A DAG folder of its own, so that a broken file can be put beside ours."""
        return self.house / "dags"

    @property
    def small_disk(self) -> Path:
        """A file system of `SMALL_DISK` bytes, where that may be mounted."""
        return self.house / "small-disk"

    @property
    def plugin(self) -> Path:
        """Where the outside plugin is, as if it were installed."""
        return self.house / "letters"


class House:
    """The stack with everything that faults need.

    Args:
        folder: empty, or with what an earlier run left.
        scale: of the rules' waits and windows; 1 for the rules as they are shipped.
        say: told each step.

    Attributes:
        stack, kept, config: of the running stack.
        telephone, watch: what was paged, and what Alertmanager knew.
        hospital: its staff.
        flow: the events that come in all the while.
        words: what a fault has put in place of a runbook's placeholders.
    """

    def __init__(self, folder: Path, *, scale: float, say: Callable[[str], None]) -> None:
        self.scale, self._say = scale, say
        self.places = Places(folder)
        self.words: dict[str, str] = {}
        self._closing = ExitStack()

    def __enter__(self) -> House:
        try:
            self._open()
        except BaseException:
            self._closing.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def _open(self) -> None:
        places = self.places
        places.state.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(places.dags, ignore_errors=True)
        shutil.copytree(PROJECT / "dags", places.dags, ignore=shutil.ignore_patterns("__pycache__"))
        self._install()
        self.has_small_disk = self._mount()
        self.kept: Kept = keep(places.state, usual_ports=False)
        self._front_port = ports.choose(self.kept.ports.values())
        self._way_port = ports.choose({*self.kept.ports.values(), self._front_port})
        self._pager_port = ports.choose({*self.kept.ports.values(), self._front_port, self._way_port})
        model = ModelServer(self.kept.url("model", "/v1"), NAME, "a test stand-in that can be ill")
        self.stack = Stack(
            places.state,
            broker="apache",
            model=model,
            overrides=self._overrides(),
            dags=places.dags,
            say=self._say,
        )
        self._closing.callback(self.stack.stop)
        self._programs()
        every = {NOTE: EVERY, EXAM: EVERY} | {letters.scenario(ward): RARELY for ward in letters.WARDS}
        remember(self.kept.folder("prometheus") / "data", every, scale=self.scale)
        self.stack.start()
        self.config = load(self.stack.config)
        self.engine: Engine = engine(self.config.ledger.url.get_secret_value())
        self._closing.callback(self.engine.dispose)
        self.ledger = Ledger(self.engine)
        self._page()
        self.hospital = Hospital(self.kept.url("fhir", "/fhir"), self.kept.secrets["hospital-server-token"])
        self._closing.callback(self.hospital.close)
        self.flow = Flow(lambda _: self.hospital.admit())
        self._closing.callback(self.flow.close)

    # --- putting it together ------------------------------------------------------------------------------------------

    def _mount(self) -> bool:
        folder = self.places.small_disk
        folder.mkdir(exist_ok=True)
        if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size={SMALL_DISK} tmpfs {folder} 2>/dev/null"):
            return False
        self._closing.callback(os.system, f"umount {folder}")
        return True

    def _install(self) -> None:
        """The outside plugin, as if it were installed: every process of the stack finds it on its path."""
        info = self.places.plugin / "letters-1.0.0.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(letters.__file__), self.places.plugin)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: letters\nVersion: 1.0.0\n", "utf-8")
        (info / "entry_points.txt").write_text("[careloom]\nletters = letters\n", "utf-8")
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(self.places.plugin), before)))
        self._closing.callback(os.environ.__setitem__, "PYTHONPATH", before or "")

    def _overrides(self) -> Mapping[str, Any]:
        kept = self.kept
        source = {
            "name": "hospital",
            "fhir_version": "R4",
            "base_url": f"http://127.0.0.1:{self._front_port}/fhir",
            "token": kept.secrets["hospital-token"],
            "server_token": kept.secrets["hospital-server-token"],
            "subscription": "backport",
        }
        disks = {"state": str(self.places.state), "small": str(self.places.small_disk)}
        return {
            "sources": [source],
            "exporter": {"disks": disks},
            "plugins": {"enabled": ["letters"]},
            "dispatcher": {"max_waiting": MAX_WAITING, "batch_size": BATCH},
            "gateway": {"public_url": f"http://127.0.0.1:{self._way_port}"},
        }

    def _programs(self) -> None:
        """Those that can be ill, before the parts that need them."""
        here = {"PYTHONPATH": str(PROJECT)}
        model = (sys.executable, "-m", "tests.fault_table.model", str(self.kept.ports["model"]))
        front = (sys.executable, "-m", "tests.fault_table.front", str(self._front_port), self.kept.url("fhir"))
        way = (sys.executable, "-m", "tests.fault_table.front", str(self._way_port), self.kept.url("gateway"))
        self.stack.add(Program("way", way, Probe("tcp", f"127.0.0.1:{self._way_port}"), env=here))
        self.stack.add(Program("model", model, Probe("http", self.kept.url("model", "/health")), env=here))
        self.stack.add(Program("fhir-front", front, Probe("tcp", f"127.0.0.1:{self._front_port}"), env=here))

    def _page(self) -> None:
        """Alertmanager, Prometheus' way to it, and the rules at their scale."""
        self.telephone = Telephone()
        self._closing.callback(self.telephone.close)
        folder, port = self.places.house / "alertmanager", self._pager_port
        self.stack.add(alertmanager(folder, port, self.telephone.port, self.scale))
        prometheus = self.kept.folder("prometheus")
        target = json.dumps([{"targets": [f"127.0.0.1:{port}"]}])
        (prometheus / "targets" / "alertmanager.json").write_text(target, "utf-8")
        if self.scale != 1:
            for file in (*(prometheus / "rules").glob("*.yml"), *(prometheus / "alerts").glob("*.yml")):
                rules = scaled(yaml.safe_load(file.read_text("utf-8")), self.scale)
                file.write_text(yaml.safe_dump(rules, sort_keys=False, allow_unicode=True, width=10_000), "utf-8")
        self.stack.restart("prometheus")
        self.watch = Watch(f"http://127.0.0.1:{port}")
        self._closing.callback(self.watch.close)

    # --- what faults ask for ------------------------------------------------------------------------------------------

    def model(self, mode: str) -> None:
        """Make the model ill, or well (\"\")."""
        httpx.post(self.kept.url("model", "/fault"), json={"mode": mode}, timeout=10).raise_for_status()

    def front(self, mode: str) -> None:
        """Make the FHIR server refuse, or not (\"\")."""
        self._told(self._front_port, mode)

    def way(self, mode: str) -> None:
        """Make the way of notifications to the gateway lose some, or not (\"\")."""
        self._told(self._way_port, mode)

    @staticmethod
    def _told(port: int, mode: str) -> None:
        httpx.post(f"http://127.0.0.1:{port}/fault", json={"mode": mode}, timeout=10).raise_for_status()

    def sql(self, statement: str) -> None:
        """One statement in the ledger."""
        with self.engine.begin() as connection:
            connection.execute(text(statement))

    def count(self, query: str) -> int:
        """What a `SELECT count(*)` says of the ledger."""
        with self.engine.begin() as connection:
            return int(connection.execute(text(query)).scalar_one())

    def unfinished(self) -> int:
        """Pieces of work that are neither done nor parked."""
        return sum(count for state, count in self.ledger.account().work.items() if state.value in _UNFINISHED)

    def prometheus(self, query: str) -> list[dict[str, Any]]:
        """What Prometheus answers now."""
        url = self.kept.url("prometheus", "/api/v1/query")
        answer = httpx.get(url, params={"query": query}, timeout=10).raise_for_status().json()
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def wait(self, done: Callable[[], bool], seconds: float) -> float | None:
        """Seconds until something is so; None when it never was."""
        began = time.monotonic()
        while not done():
            if time.monotonic() - began > seconds:
                return None
            time.sleep(0.5)
        return time.monotonic() - began

    # --- what an operator's shell has ---------------------------------------------------------------------------------

    def shell(self) -> dict[str, str]:
        """The environment in which a runbook's commands run."""
        paths = (str(Path(sys.executable).parent), str(_binaries()), os.environ["PATH"])
        return {
            **os.environ,
            **self.stack.airflow_environment,
            "PATH": os.pathsep.join(paths),
            "COLUMNS": "200",
            ENVIRONMENT_VARIABLE: str(self.stack.config),
            "LEDGER_URL": self.kept.database("careloom"),
            "FHIR_BASE": f"http://127.0.0.1:{self._front_port}/fhir",
            "AMTOOL": f"http://127.0.0.1:{self._pager_port}",
        }

    def addresses(self) -> dict[str, str]:
        """The usual address of each part -> where it is in this stack."""
        usual = {f"127.0.0.1:{port}": f"127.0.0.1:{self.kept.ports[name]}" for name, port in USUAL_PORTS.items()}
        return {**usual, "127.0.0.1:9093": f"127.0.0.1:{self._pager_port}"}
