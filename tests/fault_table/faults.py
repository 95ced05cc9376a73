"""Every fault of the table: how it is made, how it is mended, and which one alert somebody has to be told of it by."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import psutil
import psycopg
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from psycopg.sql import SQL, Identifier

from tests.fault_table import letters
from tests.fault_table.flow import EVERY, EXAM, NOTE, Flow
from tests.fault_table.front import MARK
from tests.fault_table.house import BATCH, MAX_WAITING, SMALL_DISK, House
from tests.fault_table.pager import WATCHDOG

#: Seconds that a burst lasts.
BURST = 90.0
_BROKEN = "import nothing_that_is_installed  # noqa\n"
_CROWD = """\
import time

from airflow.sdk import dag, task


@dag(schedule="@once", catchup=False)
def another_teams():
    @task
    def wait(number):
        time.sleep(3600)

    wait.expand(number=list(range(12)))


another_teams()
"""

Do = Callable[[House], None]


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        name: for `--only`.
        what: what is wrong, for the table.
        make, mend: of the fault; `mend` may be called when it is mended already.
        alert: that has to be paged, and no other; None where nobody is to be told.
        about: what the alert has to be about: a dependency, a scenario; "" where there is but one.
        waits: seconds until it may be paged at the latest, of what does not scale: attempts, deadlines, heartbeats.
        windows: seconds of the rule's own wait and windows.
        linger: seconds that the fault stays after the page, to see what else is paged.
        pages: further runbooks that are for this fault: of alerts that it keeps quiet.
        by_hand: whether the page's commands under Mitigation mend it.
        first: what has to be done before them.
    """

    name: str
    what: str
    make: Do
    mend: Do
    alert: str | None
    about: str = ""
    waits: float = 60.0
    windows: float = 60.0
    linger: float = 20.0
    pages: tuple[str, ...] = ()
    by_hand: bool = False
    first: Do = lambda house: None


def _down(*programs: str) -> tuple[Do, Do]:
    def make(house: House) -> None:
        for program in programs:
            house.stack.take_down(program)

    def mend(house: House) -> None:
        for program in programs:
            if program in house.stack.out:
                house.stack.bring_back(program)

    return make, mend


def _model(mode: str) -> tuple[Do, Do]:
    return lambda house: house.model(mode), lambda house: house.model("")


def _front(mode: str) -> tuple[Do, Do]:
    return lambda house: house.front(mode), lambda house: house.front("")


def _nothing(house: House) -> None:
    """Mended by itself."""


# --- Airflow ---------------------------------------------------------------------------------------------------------


def _kill_task(house: House, *, with_its_worker: bool = False) -> None:
    """kill -9 a task's process; with the executor's worker that looks after it, nobody is left to tell of it."""

    def killed() -> bool:
        own, *others = house.stack.pids("scheduler")
        for pid in filter(_runs_a_task, others):
            worker = psutil.Process(pid).ppid()
            if with_its_worker and worker != own:
                house.stack.kill("scheduler", worker)
            house.stack.kill("scheduler", pid)
            return True
        return False

    end = time.monotonic() + 120
    while not killed():
        if time.monotonic() > end:
            raise AssertionError("no task came to run, so that none could be killed")
        time.sleep(0.02)


def _runs_a_task(pid: int) -> bool:
    """Whether this is a worker of Airflow's with a task: it writes the task's id into its name."""
    try:
        return re.search(r"airflow worker -- [0-9a-f]{8}-", " ".join(psutil.Process(pid).cmdline())) is not None
    except psutil.Error:
        return False


def _break_dag(house: House) -> None:
    (house.places.dags / "another_teams.py").write_text(f"# from airflow.sdk import DAG\n{_BROKEN}", "utf-8")


def _mend_dag(house: House) -> None:
    (house.places.dags / "another_teams.py").unlink(missing_ok=True)


@contextmanager
def _airflow(house: House) -> Iterator[httpx.Client]:
    airflow = house.config.airflow
    with httpx.Client(base_url=airflow.url, timeout=30) as client:
        asked = {"username": airflow.username, "password": airflow.password.get_secret_value()}
        token = client.post("/auth/token", json=asked).raise_for_status().json()["access_token"]
        client.headers["authorization"] = f"Bearer {token}"
        yield client


def _pause(house: House, *, paused: bool) -> None:
    with _airflow(house) as client:
        client.patch(f"/api/v2/dags/{EXAM}", json={"is_paused": paused}).raise_for_status()


def _crowd(house: House) -> None:
    """Its tasks take every slot as it becomes free, and a ward's letters need one: no run of theirs stays."""
    (house.places.dags / "another_teams.py").write_text(_CROWD, "utf-8")
    waiting = 'airflow_pool_queued_slots{pool_name="default_pool"} > 0'
    if house.wait(lambda: bool(house.prometheus(waiting)), 60) is None:
        raise AssertionError("the other team's tasks did not take the slots")
    _late("surgery", every=10, one_in=0)(house)


def _disperse(house: House) -> None:
    _in_time("surgery", 0)(house)
    if not (house.places.dags / "another_teams.py").exists():
        return
    with _airflow(house) as client:
        runs = client.get("/api/v2/dags/another_teams/dagRuns").raise_for_status().json()["dag_runs"]
        for run in runs:
            run_at = f"/api/v2/dags/another_teams/dagRuns/{run['dag_run_id']}"
            client.patch(run_at, json={"state": "failed"}).raise_for_status()
        client.patch("/api/v2/dags/another_teams", json={"is_paused": True}).raise_for_status()
    _mend_dag(house)


# --- work, events, disks ---------------------------------------------------------------------------------------------


def _park(house: House) -> None:
    house.front("reject-one")
    house.hospital.admit(MARK)


def _fail_now_and_then(house: House) -> None:
    """With more to do than usual, most in a short window: a share of few says little, and the alert knows that."""
    house.flow.every = EVERY / 2 * house.scale
    house.model("share")


def _fail_no_more(house: House) -> None:
    house.flow.every = EVERY
    house.model("")


def _poison(house: House) -> None:
    producer = KafkaProducer(bootstrap_servers=house.config.kafka.bootstrap)
    producer.send(house.config.kafka.topic, key=b"x", value=b"<not json>").get(30)
    producer.close()


def _fill(house: House) -> None:
    if not house.has_small_disk:
        raise AssertionError("a small file system cannot be mounted here: it needs root")
    (house.places.small_disk / "full").write_bytes(b"x" * (SMALL_DISK * 95 // 100))


def _lose_records(house: House) -> None:
    """Retention is faster than the dispatcher, which a stranger's lock holds meanwhile.

    What it has read already is of no scenario: a piece of work whose record is gone would be parked as well.
    """
    house.flow.paused = True
    try:
        house.wait(lambda: house.unfinished() == 0, 60)
        _lock("events")(house)
        house.hospital.admit(status="cancelled")
        time.sleep(_BETWEEN)
        _lost[:] = [house.hospital.admit() for _ in range(12)]
        time.sleep(_BETWEEN)
        admin = KafkaAdminClient(bootstrap_servers=house.config.kafka.bootstrap)
        topic, partitions = house.config.kafka.topic, range(house.config.kafka.partitions)
        admin.delete_records({TopicPartition(topic, partition): -1 for partition in partitions})
        admin.close()
    finally:
        _unlock(house)
        house.flow.paused = False


def _found_again(house: House) -> None:
    """The page's way has to bring back what was lost."""
    named = ", ".join(f"'{name}'" for name in _lost)
    query = f"SELECT count(DISTINCT resource_id) FROM events WHERE resource_id IN ({named})"
    if house.wait(lambda: house.count(query) == len(_lost), 60) is None:
        raise AssertionError(f"{house.count(query)} of {len(_lost)} lost events were found again")


def _empty(house: House) -> None:
    (house.places.small_disk / "full").unlink(missing_ok=True)


def _burst(house: House) -> None:
    house.flow.every = EVERY / 10
    time.sleep(BURST)
    house.flow.every = EVERY


def _switch_off(house: House) -> None:
    command = ["careloom", "switch", "off", "scenario", EXAM, "--why", "the fault run"]
    subprocess.run(command, env=house.shell(), cwd=house.places.house, check=True, capture_output=True)


def _switch_on(house: House) -> None:
    house.ledger.switch_on("scenario", EXAM, by="the fault run")


#: Seconds until an event is in Kafka, and read where nothing holds it; and the Encounters of those that get lost.
_BETWEEN = 4.0
_lost: list[str] = []
_locks: list[psycopg.Connection] = []


def _lock(table: str) -> Do:
    """Somebody's transaction holds a table and does not end; of ours PostgreSQL ends one that idles."""

    def lock(house: House) -> None:
        connection = psycopg.connect(house.kept.database("careloom"))
        connection.execute(SQL("LOCK TABLE {} IN EXCLUSIVE MODE").format(Identifier(table)))
        house.words["PID"] = str(connection.info.backend_pid)
        _locks.append(connection)

    return lock


def _unlock(house: House) -> None:
    while _locks:
        _locks.pop().close()


def _miscount(house: House, by: int) -> None:
    """Somebody writes into the ledger's tables by hand."""
    first = "(SELECT min(partition) FROM progress)"
    house.sql(f"UPDATE progress SET events = events + {by} WHERE partition = {first}")


# --- letters: of scenarios with few events, which are due soon --------------------------------------------------------

#: Seconds that the FHIR server takes to write a late one, and between two that are in time.
_LATE, _SOON = 24, 0.2
_sent: list[Flow] = []


def _late(ward: str, *, every: float, one_in: int) -> Do:
    """Letters of a ward are due, and the FHIR server takes its time with one in so many (0: with none)."""

    def send(house: House) -> None:
        house.front("")
        _sent.append(
            Flow(lambda n: house.hospital.letter(ward, late=_LATE if one_in and n % one_in == 0 else 0), every)
        )

    return send


def _in_time(ward: str, letters: int) -> Do:
    """The FHIR server is quick again, and so many letters come in time."""

    def mend(house: House) -> None:
        if not _sent:
            return
        _sent.pop().close()
        house.front("")
        for _ in range(letters):
            house.hospital.letter(ward)
            time.sleep(_SOON)

    return mend


def _never_written(ward: str) -> Do:
    """The FHIR server lets one letter wait, and says so by a byte now and then: no time limit is over."""

    def send(house: House) -> None:
        house.front("")
        house.hospital.letter(ward, late=86_400)

    return send


def _flood(house: House) -> None:
    """Somebody sends a patient's whole history: one after the other, and more than may wait beside what runs hold."""
    house.front("")
    patient = house.hospital.register("written-after-10-archived")
    for _ in range(MAX_WAITING + 2 * BATCH):
        house.hospital.letter(letters.ARCHIVE, patient=patient)


def _leave_out(house: House) -> None:
    """An upgrade: the dispatcher comes back without a scenario of which there is work."""
    house.front("")
    patient = house.hospital.register("written-after-25-waiting")
    for _ in range(8):
        house.hospital.letter(letters.ARCHIVE, patient=patient)
    archived = f"SELECT count(*) FROM work WHERE state = 'waiting' AND scenario = '{letters.scenario(letters.ARCHIVE)}'"
    if house.wait(lambda: house.count(archived) > 5, 30) is None:
        raise AssertionError("no letter of the archive came to wait")
    _configure(house, f'enabled = ["letters"]\ndisabled_scenarios = ["{letters.scenario(letters.ARCHIVE)}"]')


def _take_back_in(house: House) -> None:
    house.front("quick")
    _configure(house, 'enabled = ["letters"]')


def _configure(house: House, plugins: str) -> None:
    text = house.stack.config.read_text("utf-8")
    wanted = re.sub(r'enabled = \["letters"\](\ndisabled_scenarios = .*)?', plugins, text)
    if wanted != text:
        house.stack.config.write_text(wanted, "utf-8")
        house.stack.restart("dispatcher")


FAULTS: tuple[Fault, ...] = (
    Fault("gateway-dead", "the gateway is dead", *_down("gateway"), "CareloomGatewayDown", windows=30),
    Fault(
        "model-down", "the model server is down", *_down("model"), "CareloomModelServerDown", "model:stand-in",
    ),
    Fault(
        "scheduler-dead", "Airflow's scheduler is dead", *_down("scheduler"), "CareloomAirflowSchedulerDown",
        windows=120,
    ),
    Fault("exporter-dead", "the exporter is dead", *_down("exporter"), "CareloomExporterDown", windows=30),
    Fault("dispatcher-dead", "the dispatcher is dead", *_down("dispatcher"), "CareloomDispatcherDown", windows=30),
    Fault("broker-down", "Kafka is down", *_down("kafka"), "CareloomBrokerUnavailable", windows=30),
    Fault(
        "model-garbage", "the model answers garbage", *_model("garbage"), "CareloomDependencyDown", "model:stand-in",
        waits=120, windows=120,
    ),
    Fault(
        "one-parked", "one patient's note is refused for good (422)", _park, lambda house: house.front(""),
        "CareloomWorkParked", NOTE, waits=120, by_hand=True, first=lambda house: house.front(""),
    ),
    Fault(
        "fhir-down", "careloom cannot reach the FHIR server, which still notifies", *_down("fhir-front"),
        "CareloomDependencyDown", "fhir:hospital", waits=120, windows=120,
    ),
    Fault(
        "dag-broken", "another team's DAG does not parse", _break_dag, _mend_dag, "CareloomAirflowImportErrors",
        waits=90,
    ),
    Fault(
        "fhir-refuses", "the FHIR server refuses careloom (403)", *_front("refuse"), "CareloomDependencyDown",
        "fhir:hospital", waits=120, windows=120,
    ),
    Fault(
        "disk-nearly-full", "a disk of careloom's is nearly full", _fill, _empty, "CareloomDiskNearlyFull", "small",
        windows=60,
    ),
    Fault(
        "fhir-rejects-drafts", "the FHIR server rejects every draft (422)", *_front("reject-writes"),
        "CareloomDependencyDown", "fhir-write:hospital", waits=120, windows=120,
    ),
    Fault(
        "dag-paused", "somebody pauses a scenario's DAG", lambda house: _pause(house, paused=True),
        lambda house: _pause(house, paused=False), "CareloomScenarioPaused", EXAM, by_hand=True,
    ),
    Fault("ledger-down", "the ledger's database is down", *_down("postgres"), "CareloomLedgerDown", windows=30),
    Fault(
        "triggerer-dead", "Airflow's triggerer is dead", *_down("triggerer"), "CareloomAirflowTriggererDown",
        windows=180,
    ),
    Fault(
        "switched-off", "somebody switches a scenario off", _switch_off, _switch_on, "CareloomSwitchedOff", EXAM,
        by_hand=True,
    ),
    Fault("statsd-dead", "statsd_exporter is dead", *_down("statsd"), "CareloomAirflowMetricsDown"),
    Fault(
        "fold-blocked", "a transaction blocks the fold", _lock("samples"), _unlock, "CareloomFoldStalled", waits=90,
        windows=30, by_hand=True,
    ),
    Fault(
        "intake-blocked", "a transaction blocks what comes in", _lock("events"), _unlock, "CareloomIntakeStalled",
        waits=90, windows=30, by_hand=True,
    ),
    Fault(
        "dag-processor-dead", "Airflow's DAG processor is dead", *_down("dag-processor"),
        "CareloomAirflowDagProcessorDown", windows=240,
    ),
    Fault(
        "ledger-changed", "somebody writes into the ledger by hand", lambda house: _miscount(house, 1),
        lambda house: _miscount(house, -1), "CareloomEventsUnaccounted",
    ),
    Fault(
        "fhir-gone", "the FHIR server is gone, and sends nothing either", *_down("fhir-front", "fhir"),
        "CareloomReconcileStalled", "", waits=270, windows=60,
    ),
    Fault(
        "api-server-dead", "Airflow's API server is dead", *_down("api-server"), "CareloomDependencyDown", "airflow",
        waits=120, windows=120,
    ),
    Fault("burst", "ten times as many events, for a minute and a half", _burst, _nothing, None, linger=60),
    Fault(
        "poison", "a record on the topic is no event", _poison, _nothing, "CareloomPoisonRecords", windows=30,
        by_hand=True,
    ),
    Fault("task-killed", "a task's process is killed", _kill_task, _nothing, None, linger=60),
    Fault(
        "worker-dead", "a worker is killed with its task", lambda house: _kill_task(house, with_its_worker=True),
        _nothing, "CareloomAirflowTasksLost", windows=30,
    ),
    Fault(
        "one-in-twenty-fails", "5 % of one scenario's answers are wrong", _fail_now_and_then, _fail_no_more,
        "CareloomHighErrorRate", NOTE, waits=240, windows=120,
    ),
    Fault(
        "model-slow", "the model takes 75 s an answer", *_model("slow"), "CareloomModelSlow", "model:stand-in",
        waits=240, windows=120,
        pages=("CareloomOldestUnfinishedTooOld",),
    ),
    Fault(
        "letters-late", "every letter of a ward is late, one after the other", _late("west", every=4, one_in=1),
        _in_time("west", 0), "CareloomOldestUnfinishedTooOld", letters.scenario("west"), waits=60, windows=60,
    ),
    Fault(
        "few-and-late", "a ward's letters are few, and each is some seconds late", _late("north", every=30, one_in=1),
        _in_time("north", 0), "CareloomBudgetBurnsFast", letters.scenario("north"), waits=120, windows=60,
    ),
    Fault(
        "half-are-late", "every second letter of a ward is some seconds late", _late("south", every=12, one_in=2),
        _in_time("south", 40), "CareloomBudgetBurns", letters.scenario("south"), waits=120, windows=120,
    ),
    Fault(
        "one-in-five-late", "every fifth letter of a ward is some seconds late", _late("east", every=6, one_in=5),
        _in_time("east", 160), "CareloomBudgetBurnsSlowly", letters.scenario("east"), waits=200, windows=600,
    ),
    Fault(
        "one-stuck", "the FHIR server never finishes one answer", _never_written("children"),
        lambda house: house.front(""), "CareloomWorkStuck", letters.scenario("children"), waits=60, windows=600,
    ),
    Fault(
        "notices-lost", "every third notification is lost on its way", lambda house: house.way("loses"),
        lambda house: house.way(""), "CareloomSubscriptionGaps", waits=60, windows=1800,
    ),
    Fault(
        "too-much-waits", "a patient's whole history comes at once", _flood, lambda house: house.front("quick"),
        "CareloomConsumerLagGrowing", waits=120, windows=600,
    ),
    Fault(
        "left-out", "an upgrade leaves out a scenario of which work waits", _leave_out, _take_back_in,
        "CareloomScenarioNotInstalled", letters.scenario(letters.ARCHIVE), waits=60, windows=120,
    ),
    Fault(
        "records-lost", "Kafka removes records before they are read", _lose_records, _found_again,
        "CareloomBrokerLostRecords", waits=90, windows=60, by_hand=True,
    ),
    Fault(
        "nobody-calls", "Alertmanager is dead, and nobody is told of anything", *_down("alertmanager"), WATCHDOG,
        waits=180, windows=60,
    ),
    Fault(
        "slots-taken", "another team's DAG takes every slot of Airflow", _crowd, _disperse,
        "CareloomAirflowSlotsTaken", waits=150, windows=60, linger=170, pages=("CareloomAirflowSlotsExhausted",),
    ),
)  # fmt: skip
