"""The table of faults: how each is made and mended, and which one alert somebody has to be told of it by."""

from __future__ import annotations

from tests.fault_table import letters
from tests.fault_table.airflow_faults import break_dag, crowd, disperse, kill_task, mend_dag, pause
from tests.fault_table.event_faults import (
    burst,
    empty,
    fail_no_more,
    fail_now_and_then,
    fill,
    found_again,
    lock,
    lose_records,
    miscount,
    park,
    poison,
    switch_off,
    switch_on,
    unlock,
)
from tests.fault_table.fault import Do, Fault
from tests.fault_table.flow import EXAM, NOTE
from tests.fault_table.house import House
from tests.fault_table.letter_faults import flood, in_time, late, leave_out, never_written, take_back_in
from tests.fault_table.pager import WATCHDOG


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
        "one-parked", "one patient's note is refused for good (422)", park, lambda house: house.front(""),
        "CareloomWorkParked", NOTE, waits=120, by_hand=True, first=lambda house: house.front(""),
    ),
    Fault(
        "fhir-down", "careloom cannot reach the FHIR server, which still notifies", *_down("fhir-front"),
        "CareloomDependencyDown", "fhir:hospital", waits=120, windows=120,
    ),
    Fault(
        "dag-broken", "another team's DAG does not parse", break_dag, mend_dag, "CareloomAirflowImportErrors",
        waits=90,
    ),
    Fault(
        "fhir-refuses", "the FHIR server refuses careloom (403)", *_front("refuse"), "CareloomDependencyDown",
        "fhir:hospital", waits=120, windows=120,
    ),
    Fault(
        "disk-nearly-full", "a disk of careloom's is nearly full", fill, empty, "CareloomDiskNearlyFull", "small",
        windows=60,
    ),
    Fault(
        "fhir-rejects-drafts", "the FHIR server rejects every draft (422)", *_front("reject-writes"),
        "CareloomDependencyDown", "fhir-write:hospital", waits=120, windows=120,
    ),
    Fault(
        "dag-paused", "somebody pauses a scenario's DAG", lambda house: pause(house, paused=True),
        lambda house: pause(house, paused=False), "CareloomScenarioPaused", EXAM, by_hand=True,
    ),
    Fault("ledger-down", "the ledger's database is down", *_down("postgres"), "CareloomLedgerDown", windows=30),
    Fault(
        "triggerer-dead", "Airflow's triggerer is dead", *_down("triggerer"), "CareloomAirflowTriggererDown",
        windows=180,
    ),
    Fault(
        "switched-off", "somebody switches a scenario off", switch_off, switch_on, "CareloomSwitchedOff", EXAM,
        by_hand=True,
    ),
    Fault("statsd-dead", "statsd_exporter is dead", *_down("statsd"), "CareloomAirflowMetricsDown"),
    Fault(
        "fold-blocked", "a transaction blocks the fold", lock("samples"), unlock, "CareloomFoldStalled", waits=90,
        windows=30, by_hand=True,
    ),
    Fault(
        "intake-blocked", "a transaction blocks what comes in", lock("events"), unlock, "CareloomIntakeStalled",
        waits=90, windows=30, by_hand=True,
    ),
    Fault(
        "dag-processor-dead", "Airflow's DAG processor is dead", *_down("dag-processor"),
        "CareloomAirflowDagProcessorDown", windows=240,
    ),
    Fault(
        "ledger-changed", "somebody writes into the ledger by hand", lambda house: miscount(house, 1),
        lambda house: miscount(house, -1), "CareloomEventsUnaccounted",
    ),
    Fault(
        "fhir-gone", "the FHIR server is gone, and sends nothing either", *_down("fhir-front", "fhir"),
        "CareloomReconcileStalled", "", waits=270, windows=60,
    ),
    Fault(
        "api-server-dead", "Airflow's API server is dead", *_down("api-server"), "CareloomDependencyDown", "airflow",
        waits=120, windows=120,
    ),
    Fault("burst", "ten times as many events, for a minute and a half", burst, _nothing, None, linger=60),
    Fault(
        "poison", "a record on the topic is no event", poison, _nothing, "CareloomPoisonRecords", windows=30,
        by_hand=True,
    ),
    Fault("task-killed", "a task's process is killed", kill_task, _nothing, None, linger=60),
    Fault(
        "worker-dead", "a worker is killed with its task", lambda house: kill_task(house, with_its_worker=True),
        _nothing, "CareloomAirflowTasksLost", windows=30,
    ),
    Fault(
        "one-in-twenty-fails", "5 % of one scenario's answers are wrong", fail_now_and_then, fail_no_more,
        "CareloomHighErrorRate", NOTE, waits=240, windows=120,
    ),
    Fault(
        "model-slow", "the model takes 75 s an answer", *_model("slow"), "CareloomModelSlow", "model:stand-in",
        waits=240, windows=120,
        pages=("CareloomOldestUnfinishedTooOld",),
    ),
    Fault(
        "letters-late", "every letter of a ward is late, one after the other", late("west", every=4, one_in=1),
        in_time("west", 0), "CareloomOldestUnfinishedTooOld", letters.scenario("west"), waits=60, windows=60,
    ),
    Fault(
        "few-and-late", "a ward's letters are few, and each is some seconds late", late("north", every=30, one_in=1),
        in_time("north", 0), "CareloomBudgetBurnsFast", letters.scenario("north"), waits=120, windows=60,
    ),
    Fault(
        "half-are-late", "every second letter of a ward is some seconds late", late("south", every=12, one_in=2),
        in_time("south", 40), "CareloomBudgetBurns", letters.scenario("south"), waits=120, windows=120,
    ),
    Fault(
        "one-in-five-late", "every fifth letter of a ward is some seconds late", late("east", every=6, one_in=5),
        in_time("east", 160), "CareloomBudgetBurnsSlowly", letters.scenario("east"), waits=200, windows=600,
    ),
    Fault(
        "one-stuck", "the FHIR server never finishes one answer", never_written("children"),
        lambda house: house.front(""), "CareloomWorkStuck", letters.scenario("children"), waits=60, windows=600,
    ),
    Fault(
        "notices-lost", "every third notification is lost on its way", lambda house: house.way("loses"),
        lambda house: house.way(""), "CareloomSubscriptionGaps", waits=60, windows=1800,
    ),
    Fault(
        "too-much-waits", "a patient's whole history comes at once", flood, lambda house: house.front("quick"),
        "CareloomConsumerLagGrowing", waits=120, windows=600,
    ),
    Fault(
        "left-out", "an upgrade leaves out a scenario of which work waits", leave_out, take_back_in,
        "CareloomScenarioNotInstalled", letters.scenario(letters.ARCHIVE), waits=60, windows=120,
    ),
    Fault(
        "records-lost", "Kafka removes records before they are read", lose_records, found_again,
        "CareloomBrokerLostRecords", waits=90, windows=60, by_hand=True,
    ),
    Fault(
        "nobody-calls", "Alertmanager is dead, and nobody is told of anything", *_down("alertmanager"), WATCHDOG,
        waits=180, windows=60,
    ),
    Fault(
        "slots-taken", "another team's DAG takes every slot of Airflow", crowd, disperse,
        "CareloomAirflowSlotsTaken", waits=150, windows=60, linger=170, pages=("CareloomAirflowSlotsExhausted",),
    ),
)  # fmt: skip
