"""The few faults that need Airflow itself and HAPI FHIR itself: the whole stack, its processes killed in turn."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from account import FINAL, Outcome
from cases import word_of
from options import Options
from psycopg import sql
from servers import until

from fhir_adapters.event import ClinicalEvent
from fhir_adapters.write_fence import is_fence
from pipelines.config import load
from pipelines.ledger import Ledger, engine
from pipelines.ledger.journal import Piece, pieces
from pipelines.stack import hapi, kafka
from pipelines.stack.environment import Stack

Say = Callable[[str], None]

#: Longer than HAPI goes on trying to deliver a notification: it then drops it, and says nothing.
_DROPPED_AFTER = 75.0
_PATIENCE = 420.0
_END_ALL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
)


class Ward:
    """A hospital on HAPI FHIR: admits patients and corrects their admissions, and is asked for every draft at the end.

    Args:
        stack: running.
    """

    def __init__(self, stack: Stack) -> None:
        config = load(stack.config)
        self.stack = stack
        self._source = next(source for source in config.sources if source.name == "hapi")
        self.engine = engine(config.ledger.url.get_secret_value())
        headers = {"content-type": "application/fhir+json", "cache-control": "no-cache"}
        self._http = httpx.Client(base_url=f"{self._source.base_url}/", headers=headers, timeout=60)
        self.newest: dict[str, int] = {}
        self._number = 0

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()
        self.engine.dispose()

    def admit(self, *, corrections: int = 0) -> str:
        """A patient comes in; his Encounter is corrected so many times at once. Returns the Encounter's id."""
        self._number += 1
        patient, encounter = f"chaos-p{self._number:05}", f"chaos-e{self._number:05}"
        self._put({"resourceType": "Patient", "id": patient, "gender": "female", "birthDate": "1970-05-17"})
        for correction in range(corrections + 1):
            answer = self._put(
                {
                    "resourceType": "Encounter",
                    "id": encounter,
                    "status": "in-progress",
                    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                    "subject": {"reference": f"Patient/{patient}"},
                    "period": {"start": f"2026-11-22T08:{correction:02}:00+00:00"},
                    "reasonCode": [{"text": f"cough, {word_of(patient)}"}],
                }
            )
            self.newest[encounter] = int(answer["meta"]["versionId"])
        return encounter

    def event_id(self, encounter: str, version: int) -> str:
        """The identity of one version's event."""
        return ClinicalEvent(self._source.name, "R4", "Encounter", encounter, str(version), None, None, b"").identity

    def work(self, encounters: list[str]) -> list[Piece]:
        """What became of their newest versions."""
        return pieces(self.engine, [self.event_id(one, self.newest[one]) for one in encounters])

    def notes(self) -> list[dict[str, Any]]:
        """Every draft note that the server holds."""
        found: list[dict[str, Any]] = []
        url: str | None = "Composition?_security=AIAST&_count=200"
        while url:
            page = self._http.get(url).raise_for_status().json()
            found += [entry["resource"] for entry in page.get("entry", []) if not is_fence(entry["resource"])]
            url = next((link["url"] for link in page.get("link", []) if link["relation"] == "next"), None)
        return found

    def _put(self, resource: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.put(f"{resource['resourceType']}/{resource['id']}", json=resource)
        answer.raise_for_status()
        saved: dict[str, Any] = answer.json()
        return saved


def real_engines(options: Options, say: Say) -> Iterator[Outcome]:
    """Airflow's processes and databases killed -9 and cut off; HAPI's notifications late, dropped and reordered."""
    if why := kafka.missing() or hapi.missing():
        yield Outcome("Airflow and HAPI themselves", skipped=why)
        return
    with ExitStack() as closing:
        folder = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="careloom-real-")))
        folder.chmod(0o755)
        stack = closing.enter_context(Stack(folder / "state", model="stand-in", hapi=True))
        stack.start()
        ward = Ward(stack)
        closing.callback(ward.close)
        say("  the whole stack is up")
        first = ward.admit()
        until(lambda: _done(ward, [first]), "the first draft", 120, every=0.5)
        rounds = 1 if options.quick else 3
        kills: tuple[tuple[str, str], ...] = (
            ("Airflow's worker killed -9", "worker"),
            ("Airflow's scheduler killed -9", "scheduler"),
            ("Airflow's api-server killed -9", "api-server"),
            ("Airflow's database and the ledger killed -9", "postgres"),
        )
        for name, victim in kills:
            yield _struck(ward, name, rounds, lambda outcome, victim=victim: _kill(stack, victim))
        cuts: tuple[tuple[str, str], ...] = (
            ("Airflow's database alone cut off", "airflow"),
            ("the ledger alone cut off", "careloom"),
        )
        for name, database in cuts:
            yield _struck(ward, name, rounds, partial(_cut_off, ward, database, options.outage))
        yield _reordered(ward, 4 if options.quick else 20)
        yield _dropped(ward, 6 if options.quick else 30)


def _struck(ward: Ward, name: str, rounds: int, strike: Callable[[Outcome], None]) -> Outcome:
    """Do it while patients come in; each time something must be written afterwards."""
    outcome, began = Outcome(name), time.monotonic()
    admitted: list[str] = []
    over = threading.Event()

    def admit() -> None:
        while not over.wait(0.7):
            admitted.append(ward.admit())

    admitting = threading.Thread(target=admit)
    admitting.start()
    try:
        for _ in range(rounds):
            time.sleep(3.0)
            strike(outcome)
            ward.stack.wait_healthy()
            outcome.injections += 1
            ended, before = time.monotonic(), _written(ward, admitted)
            until(lambda before=before: _written(ward, admitted) > before, "something is written again", 240, every=0.2)
            outcome.progress.append(time.monotonic() - ended)
    finally:
        over.set()
        admitting.join()
    return _settled(ward, admitted, outcome, began)


def _reordered(ward: Ward, patients: int) -> Outcome:
    """Nine corrections in a row of each Encounter: HAPI delivers them late and in another order."""
    outcome, began = Outcome("HAPI: ten versions at once, delivered in any order"), time.monotonic()
    admitted = [ward.admit(corrections=9) for _ in range(patients)]
    outcome.injections = 10 * patients
    return _settled(ward, admitted, outcome, began)


def _dropped(ward: Ward, patients: int) -> Outcome:
    """The gateway is away for longer than HAPI goes on trying: what it has dropped is found by searching."""
    outcome, began = Outcome("HAPI: notifications dropped while the gateway is away"), time.monotonic()
    ward.stack.take_down("gateway")
    admitted = [ward.admit(corrections=2) for _ in range(patients)]
    time.sleep(_DROPPED_AFTER)
    ward.stack.bring_back("gateway")
    outcome.injections = patients
    return _settled(ward, admitted, outcome, began)


def _settled(ward: Ward, admitted: list[str], outcome: Outcome, began: float) -> Outcome:
    """Wait until nothing is left to do, and hold every admission against the drafts that the server has."""
    since = time.monotonic()
    try:
        until(lambda: _done(ward, admitted), "drained", _PATIENCE, every=0.5)
        outcome.drained = time.monotonic() - since
    except AssertionError:
        left = Counter((piece.state.value, piece.error_class) for piece in ward.work(admitted))
        outcome.notes.append(f"not drained after {_PATIENCE:.0f} s: {dict(left)}")
    states: dict[str, set[str]] = {}
    for piece in ward.work(admitted):  # one for each scenario that an admission starts
        states.setdefault(piece.event_id, set()).add(piece.state.value)
    outcome.events = len(admitted)
    for encounter in admitted:
        found = states.get(ward.event_id(encounter, ward.newest[encounter]), {"nowhere"})
        outcome.written += found == {"written"}
        if found != {"written"}:
            outcome.lost += 1
            outcome.notes.append(f"{encounter} is {', '.join(sorted(found))}")
    _hold_against_the_server(ward, admitted, outcome)
    outcome.unaccounted = Ledger(ward.engine).account().unaccounted
    outcome.seconds = time.monotonic() - began
    return outcome


def _hold_against_the_server(ward: Ward, admitted: list[str], outcome: Outcome) -> None:
    versions = {
        ward.event_id(one, version): (one, version) for one in admitted for version in range(1, ward.newest[one] + 1)
    }
    notes = [(str(note["identifier"]["value"]).partition(":")[0], note) for note in ward.notes()]
    mine = [(*versions[event_id], note) for event_id, note in notes if event_id in versions]
    copies = Counter((encounter, version) for encounter, version, _ in mine)
    outcome.doubled = sum(count - 1 for count in copies.values())
    outcome.wrong = sum(note["encounter"]["reference"].split("/")[-1] != encounter for encounter, _, note in mine)
    outcome.wrong += sum((one, ward.newest[one]) not in copies for one in admitted)
    highest: dict[str, int] = {}
    for encounter, version, _ in sorted(mine, key=lambda one: one[2]["meta"]["lastUpdated"]):
        outcome.stale_writes += version < highest.get(encounter, 0)
        highest[encounter] = max(highest.get(encounter, 0), version)


def _done(ward: Ward, admitted: list[str]) -> bool:
    work = ward.work(admitted)
    come = {piece.event_id for piece in work}
    return len(come) == len(admitted) and all(piece.state.value in FINAL for piece in work)


def _written(ward: Ward, admitted: list[str]) -> int:
    return sum(piece.state.value == "written" for piece in ward.work(list(admitted)))


def _kill(stack: Stack, victim: str) -> None:
    """kill -9 one of the stack's programs, or the process of Airflow's that is running a task."""
    if victim != "worker":
        stack.kill(victim)
        return
    running: list[int] = []

    def found() -> bool:
        running[:] = [pid for pid in stack.pids("scheduler")[1:] if _runs_a_task(pid)]
        return bool(running)

    until(found, "a task that can be killed", 120, every=0.05)
    stack.kill("scheduler", running[-1])


def _cut_off(ward: Ward, database: str, seconds: float, outcome: Outcome) -> None:
    """One database of the server refuses connections for a while, and those that it has are ended; the others go on."""
    name = sql.Identifier(database)
    with psycopg.connect(ward.stack.kept.database("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        ended = connection.execute(_END_ALL, [database]).rowcount
        time.sleep(seconds)
        left = connection.execute(_END_ALL, [database]).rowcount
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
    ward.engine.dispose()
    outcome.expect("whether connections were ended", int(ended > 0), 1)
    outcome.expect("connections while it was cut off", left, 0)
    outcome.notes.append(f"{ended} connections ended")


def _runs_a_task(pid: int) -> bool:
    """Whether this is a worker of Airflow's with a task: it writes the task's id into its name."""
    try:
        return re.search(r"airflow worker -- [0-9a-f]{8}-", " ".join(psutil.Process(pid).cmdline())) is not None
    except psutil.Error:
        return False
