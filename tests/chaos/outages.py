"""What careloom stands on goes away and comes back: brokers, ledger, dispatchers, paused workers."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator

from account import FINAL, Outcome
from cases import TRIAGE, Case
from forks import Child
from hospital_fake import Ask, Refusal
from house import House
from options import Options
from servers import until
from trial import Trial, trial


def broker(house: House, options: Options) -> Iterator[Outcome]:
    """The one broker is killed -9 and started again."""
    with trial(house, options, "broker killed -9 and started again") as told:
        for _ in range(options.rounds):
            house.kafka[0].kill()
            house.kafka[0].start()
            told.ended()
            _until_progress(told)
    yield told.outcome


def each_broker(options: Options, say: Callable[[str], None]) -> Iterator[Outcome]:
    """Of three brokers each is killed -9 in turn, and stays away for a while."""
    with House(brokers=3, say=say) as house:
        with trial(house, options, "each of three brokers killed -9 in turn") as told:
            for _ in range(1 if options.quick else 3):
                for node in house.kafka:
                    node.kill()
                    told.ended()  # the other two go on: from here on it must work
                    time.sleep(options.outage / 2)
                    node.start(patience=420)
                    time.sleep(3.0)  # until it is in sync again, or the next kill would leave one alone
        yield told.outcome
        yield _two_of_three(house, options)


def _two_of_three(house: House, options: Options) -> Outcome:
    """Two brokers are killed: one copy is no durable one, so every sender is told to come back, and nobody 2xx."""
    with trial(house, options, "two of three brokers killed -9: 503 until one is back") as told:
        for first in range(1 if options.quick else 3):
            pair = [house.kafka[(first + step) % 3] for step in range(2)]
            for node in pair:
                node.kill()
            time.sleep(1.0)  # what was acknowledged before the kill may still be on its way to the sender
            before, refused = len(house.sender.acknowledgements), house.sender.statuses[503]
            # the flow may wait for what it has sent, which nobody can read now: these are sent whatever it does
            senders = [house.cases.one(TRIAGE) for _ in range(4)]
            told.cases += senders
            house.sender.start(senders)
            waited = until(lambda before=refused: house.sender.statuses[503] > before, "the gateway answers 503", 60)
            time.sleep(options.outage)
            told.outcome.expect("2xx while one broker was left", len(house.sender.acknowledgements) - before, 0)
            times = house.sender.statuses[503] - refused
            told.outcome.notes.append(f"told 503: {times}, the first after {waited:.1f} s")
            for node in pair:
                node.start(wait=False)
            told.ended(2)
            for node in pair:
                node.wait(420)
            _until_progress(told, 240)
    return told.outcome


def ledger(house: House, options: Options) -> Iterator[Outcome]:
    """The ledger's PostgreSQL is killed -9 with all its backends, stays away a moment, and is started again."""
    with trial(house, options, "ledger killed -9 and started again") as told:
        for round_ in range(options.rounds + 1):
            house.postgres.kill()
            time.sleep(0.5 + round_ % 3)
            house.postgres.start()
            told.ended()
            _until_progress(told)
    yield told.outcome


def airflow_away(house: House, options: Options) -> Iterator[Outcome]:
    """Airflow's API refuses connections for a while."""
    with trial(house, options, "Airflow's API away") as told:
        house.airflow.server.down()
        time.sleep(options.outage)
        house.airflow.server.up()
        told.ended()
    yield told.outcome


def two_dispatchers(house: House, options: Options) -> Iterator[Outcome]:
    """Two share the work; one is killed again and again, left dead, and paused until the other has taken over."""
    house.bring("dispatcher", 1)
    try:
        with trial(house, options, "two dispatchers, one killed -9 in turn") as told:
            for round_ in range(2 + options.rounds):
                house.kill("dispatcher", round_ % 2)
                told.ended()
                time.sleep(1.0)
            house.take_away("dispatcher", 0)
            told.ended()
            time.sleep(8.0)  # longer than the group waits for one that was killed
            house.bring("dispatcher", 0)
        yield told.outcome
        if options.quick:
            return
        with trial(house, options, "two dispatchers, one paused and back") as told:
            for round_ in range(3):
                paused = house.forks[f"dispatcher-{round_ % 2}"]
                paused.signal(signal.SIGSTOP)
                time.sleep(8.0)
                paused.signal(signal.SIGCONT)
                told.ended()
                time.sleep(1.0)
        yield told.outcome
    finally:
        house.take_away("dispatcher", 1)


def paused_workers(house: House, options: Options) -> Iterator[Outcome]:
    """A worker is paused at each spot, thought dead, a newer version comes, and then it goes on."""
    spots = ("claimed", "took", "asked", "inferred", "sending", "leaving", "sent")
    for spot in ("took", "leaving") if options.quick else spots:
        name = f"worker paused at runner.{spot} until a newer version is written"
        times, before = 1 if options.quick else 4, house.hospital.fenced_off
        with trial(house, options, name, streaming=False) as told:
            for _ in range(times):
                _pause_once(told, f"runner.{spot}")
        if spot == "leaving":  # confirmed, and not a byte had left
            told.outcome.expect("late transactions that met a fence", house.hospital.fenced_off - before, times)
        yield told.outcome


def _pause_once(told: Trial, spot: str) -> None:
    """The first task that passes the spot stops there; the newer version overtakes; the task goes on."""
    house = told.house
    older, newer = house.cases.versions(2)
    told.cases += [older, newer]
    until(lambda: not house.airflow.running, "no run stays that would take it without stopping", 60)
    stopped = threading.Event()
    caught: list[Child] = []

    def plan(role: str) -> str:
        return f"{spot}=stop" if role == "carry" and not caught else ""

    def noted(child: Child) -> None:
        caught.append(child)
        stopped.set()

    house.plan, house.airflow.chaos.task_stopped = plan, noted
    if spot == "runner.took":  # a run that stays takes it: it has been made for another
        house.airflow.chaos.env = {"CARELOOM_CONFIG": str(house.staying)}
        first = house.cases.one("in_visit.admission_note")
        told.cases.append(first)
        house.sender.send([first])
        until(lambda: _written(house, first), "the run's first row is written", 60)
    house.sender.send([older])
    assert stopped.wait(30), f"no task came to {spot}"
    house.plan, house.airflow.chaos.env = lambda role: "", {}
    house.sender.send([newer])
    told.outcome.progress.append(until(lambda: _written(house, newer), "the newer version is written", 60))
    caught[0].signal(signal.SIGCONT)
    caught[0].ended.wait(30)
    told.ended()


def late_commits(house: House, options: Options) -> Iterator[Outcome]:
    """The FHIR server takes its time over a transaction; its worker is lost meanwhile, and a newer version written."""
    times, before = 1 if options.quick else 4, house.hospital.fenced_off
    with trial(house, options, "FHIR server commits after a newer version was written", streaming=False) as told:
        for _ in range(times):
            _commit_late(told, 8.0 if options.quick else 15.0)
    told.outcome.expect("late transactions that met a fence", house.hospital.fenced_off - before, times)
    yield told.outcome


def _commit_late(told: Trial, seconds: float) -> None:
    house = told.house
    older, newer = house.cases.versions(2)
    told.cases += [older, newer]
    asked = threading.Event()

    def fault(ask: Ask) -> Refusal | None:
        if ask.event_id != older.event_id or asked.is_set():
            return None
        asked.set()
        return Refusal(0, after=True, late=seconds)

    house.hospital.fault = fault
    house.sender.send([older])
    assert asked.wait(60), "the older version's drafts were never sent"
    house.sender.send([newer])
    until(lambda: house.states([newer.event_id]), "the newer version is known", 30)
    for run in list(house.airflow.runs.values()):
        if run.child is not None:
            run.child.signal(signal.SIGKILL)
    told.outcome.progress.append(until(lambda: _written(house, newer), "the newer version is written", 60))
    time.sleep(seconds + 1.0)
    house.hospital.fault = lambda ask: None
    told.ended()


def _written(house: House, case: Case) -> bool:
    return any(state in FINAL for _, state, _ in house.states([case.event_id]).get(case.event_id, []))


def _until_progress(told: Trial, patience: float = 60.0) -> None:
    """Until a draft was written since the fault ended; then for a moment more."""
    commits = told.house.hospital.commits
    before = len(commits)
    until(lambda: len(commits) > before, "something is written again", patience)
    time.sleep(1.0)
