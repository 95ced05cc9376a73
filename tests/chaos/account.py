"""The account after a fault: what the sender was told is held against the ledger and against the FHIR server."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson
from cases import DRAFTS, WORD, Case, word_of
from house import House
from servers import until

#: States in which nothing is left to do without a person.
FINAL = frozenset({"written", "stale", "parked", "discarded"})


@dataclass
class Outcome:
    """What one fault did.

    Attributes:
        name: of the fault.
        injections: how often it was done.
        events: that the sender had acknowledged.
        written, stale, parked: what became of them; `parked` only by the reason that the fault gives.
        lost: acknowledged, and neither written, nor stale for a newer version, nor parked for the expected reason.
        doubled: drafts whose identity stands more than once at the FHIR server.
        wrong: drafts that are not all of what the event should have, hold another patient's words, or are nobody's.
        stale_writes: drafts of a version written after those of a newer one.
        unaccounted: Kafka records and rows that the ledger's own sum misses, and records that it passed over or never
            read.
        progress: seconds from each end of a fault to the next thing done: recovery p50 and longest are of these.
        drained: seconds from the last end of it until nothing was left to do.
        seconds: all of it.
        notes: what else is worth a look.
        short: how many of the injections that were asked for were not done.
        skipped: why it could not be done here.
    """

    name: str
    injections: int = 0
    events: int = 0
    written: int = 0
    stale: int = 0
    parked: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    stale_writes: int = 0
    unaccounted: int = 0
    progress: list[float] = field(default_factory=list)
    drained: float | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    short: int = 0
    skipped: str | None = None

    def expect(self, what: str, found: int, wanted: int) -> None:
        """Hold a figure of this fault's own against what it must be; the difference counts as wrong."""
        if found != wanted:
            self.wrong += abs(found - wanted)
            self.notes.append(f"{what}: {found}, not {wanted}")

    @property
    def good(self) -> bool:
        """Whether the fault was done, and what must hold holds."""
        if not self.injections:
            return self.skipped is not None
        return not (self.short or self.lost or self.doubled or self.wrong or self.stale_writes or self.unaccounted)

    @property
    def line(self) -> str:
        """In a few words."""
        counts = f"{self.injections} done, {self.events} events: {self.written} written, {self.stale} stale"
        bad = f"lost {self.lost}, doubled {self.doubled}, wrong {self.wrong}, stale writes {self.stale_writes}"
        rest = "".join(f"\n      {note}" for note in self.notes[:12])
        return f"{counts}, {self.parked} parked; {bad}, unaccounted {self.unaccounted}{rest}"

    @property
    def recovery(self) -> tuple[float, float] | None:
        """p50 and longest of `progress`."""
        return (statistics.median(self.progress), max(self.progress)) if self.progress else None

    def as_json(self) -> dict[str, Any]:
        """For the report."""
        whole = {key: value for key, value in asdict(self).items() if key != "progress"}
        p50, longest = self.recovery or (None, None)
        rounded = {"recovery_p50": _rounded(p50), "recovery_max": _rounded(longest), "drained": _rounded(self.drained)}
        return {**whole, **rounded, "seconds": round(self.seconds, 1), "good": self.good}


def drain(house: House, cases: Collection[Case], outcome: Outcome, *, since: float, patience: float = 180.0) -> None:
    """Wait until nothing is left to do for these events: by itself, no hand is lent. Notes how long it took."""
    wanted = [case.event_id for case in cases if _acknowledged(house, case)]

    def done() -> bool:
        states = house.states(wanted)
        return len(states) == len(wanted) and all(s in FINAL for rows in states.values() for _, s, _ in rows)

    try:
        until(done, "drained", patience, every=0.1)
        outcome.drained = time.monotonic() - since
    except AssertionError:
        left = Counter((state, error) for rows in house.states(wanted).values() for _, state, error in rows)
        outcome.notes.append(f"not drained after {patience:.0f} s: {dict(left)}")


def settle(
    house: House,
    cases: Sequence[Case],
    outcome: Outcome,
    *,
    parked_for: Mapping[str, str] | None = None,
) -> Outcome:
    """Fill in what became of these events.

    Args:
        house: where they went.
        cases: that were sent.
        outcome: to be filled.
        parked_for: event id -> the error class that the fault parks it for; nothing else may be parked.
    """
    expected_dead = parked_for or {}
    told = [case for case in cases if _acknowledged(house, case)]
    states = house.states([case.event_id for case in cases])
    drafts = _drafts_by_event(house)
    newest = _newest(told)
    outcome.events = len(told)
    for case in told:
        rows = states.get(case.event_id, [])
        mine = drafts.get(case.event_id, [])
        [state] = [state for scenario, state, _ in rows if scenario == case.scenario] or ["nowhere"]
        if len(rows) > 1:
            outcome.wrong += 1
            outcome.notes.append(f"{case.resource_id}: {len(rows)} pieces of work for one event")
        _judge(case, state, rows, outcome, newest, expected_dead)
        outcome.wrong += _wrong(case, state, mine)
    known = {case.event_id for case in cases}
    outcome.doubled += sum(
        len(copies) - 1 for event_id in known for _, copies in drafts.get(event_id, []) if len(copies) > 1
    )
    outcome.wrong += sum(event_id not in house.sender.told for event_id in drafts)  # of an event that nobody sent
    outcome.stale_writes += _stale_writes(house, cases)
    behind = unread(house)
    account = house.ledger.account()
    outcome.unaccounted = account.unaccounted + account.missing + behind
    return outcome


def unread(house: House) -> int:
    """Records that Kafka holds and the ledger has not read, once everything has come to rest."""
    from kafka import KafkaConsumer, TopicPartition

    topic = house.config.kafka.topic
    consumer = KafkaConsumer(bootstrap_servers=house.config.kafka.bootstrap, group_id=None)
    try:
        partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
        ends = consumer.end_offsets(partitions)
        behind = 1
        for _ in range(50):
            known = {p: house.ledger.next_offset(topic, p.partition) or 0 for p in partitions}
            behind = sum(max(0, ends[p] - known[p]) for p in partitions)
            if not behind:
                break
            time.sleep(0.1)
        return behind
    finally:
        consumer.close(autocommit=False)


def _acknowledged(house: House, case: Case) -> bool:
    told = house.sender.told.get(case.event_id)
    return told is not None and bool(told.acknowledged)


def _judge(
    case: Case,
    state: str,
    rows: Sequence[tuple[str, str, str]],
    outcome: Outcome,
    newest: Mapping[str, int],
    expected_dead: Mapping[str, str],
) -> None:
    if state == "written" and case.event_id not in expected_dead:
        outcome.written += 1
    elif state == "stale" and newest[case.resource_id] > case.version:
        outcome.stale += 1
    elif state == "parked" and any(error == expected_dead.get(case.event_id) for _, _, error in rows):
        outcome.parked += 1
    else:
        outcome.lost += 1
        why = ", ".join(sorted({error for _, _, error in rows if error}))
        outcome.notes.append(f"{case.resource_id} version {case.version} is {state} {why}".strip())


def _wrong(case: Case, state: str, mine: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> int:
    """Drafts that do not belong, and those that are missing."""
    names = {name for name, _ in mine}
    missing = len(DRAFTS[case.scenario] - names) if state == "written" else 0
    mixed = 0
    for _, copies in mine:
        for resource in copies:
            whole = orjson.dumps(resource).decode()
            strangers = set(WORD.findall(whole)) - {word_of(case.resource_id)}
            mixed += bool(strangers) or "4711007" in whole or f"Patient/{case.patient}" not in whole
    return missing + len(names - DRAFTS[case.scenario]) + mixed


def _drafts_by_event(house: House) -> dict[str, list[tuple[str, list[dict[str, Any]]]]]:
    found: dict[str, list[tuple[str, list[dict[str, Any]]]]] = {}
    for identity, copies in house.hospital.drafts().items():
        event_id, _, rest = identity.partition(":")
        found.setdefault(event_id, []).append((rest.rpartition(":")[2], copies))
    return found


def _newest(cases: Iterable[Case]) -> dict[str, int]:
    newest: dict[str, int] = {}
    for case in cases:
        newest[case.resource_id] = max(newest.get(case.resource_id, 0), case.version)
    return newest


def _stale_writes(house: House, cases: Iterable[Case]) -> int:
    """Drafts of a version that were written after those of a newer one."""
    of_event = {case.event_id: case for case in cases}
    highest: dict[str, int] = {}
    late = 0
    for commit in list(house.hospital.commits):
        case = of_event.get(commit.event_id)
        if case is None:
            continue
        late += case.version < highest.get(case.resource_id, 0)
        highest[case.resource_id] = max(highest.get(case.resource_id, 0), case.version)
    return late


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
