"""Whatever dispatchers, workers and people do in whatever order: nothing is lost, doubled or out of order."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from pipelines.errors import ErrorClass, LeaseLost, StepFailed, Waits
from pipelines.ledger import Incoming, Inference, Ledger, Position, State, WorkItem, Written
from pipelines.ledger.states import IN_RUN, MOVES, UNFINISHED
from pipelines.ledger.staying import Stayer

SCENARIOS = ("in_visit.note", "in_visit.watch")
PATIENTS = 4
READING = "fhir:hospital"
_IN_CLOSED_RUNS = text(
    "SELECT count(*) FROM work JOIN runs USING (run_id)"
    " WHERE closed_at IS NOT NULL AND state IN ('dispatched', 'running', 'inferred')"
)
Row = tuple[str, str, State, str | None]  # scenario, patient, state, run


class World:
    """A ledger, what its users hold, and what must be true of it after every step."""

    def __init__(self, ledger: Ledger, engine: Engine, make: Any, chance: random.Random) -> None:
        self.ledger = ledger
        self.engine = engine
        self.make = make
        self.chance = chance
        self.sent = 0
        self.runs: list[str] = []
        self.stayers: list[Stayer] = []
        self.items: list[WorkItem] = []  # of every claim there ever was, so that old leases are tried too
        self.before: dict[int, Row] = {}

    # what dispatchers do

    def records_come(self) -> None:
        again = self.chance.randrange(3)
        first = max(0, self.sent - again)
        batch = []
        for offset in range(first, self.sent + self.chance.randrange(1, 5)):
            kind = random.Random(offset)  # a record that comes again is the same
            if kind.random() < 0.1:
                batch.append(Incoming(Position("events", 0, offset), None))
                continue
            resource = f"r{kind.randrange(12)}" if kind.random() < 0.5 else f"own{offset}"
            batch.append(
                self.make(
                    offset,
                    patient=f"p{kind.randrange(PATIENTS)}",
                    resource=resource,
                    version=str(offset),
                    updated=kind.randrange(20),
                    event_id=f"e{kind.randrange(offset + 1)}" if kind.random() < 0.1 else None,
                    scenarios=SCENARIOS[: kind.randrange(3)],
                )
            )
        self.ledger.record(batch)
        self.sent = max(self.sent, batch[-1].position.offset + 1)

    def broker_loses_data(self) -> None:
        if self.sent:
            self.sent = self.chance.randrange(self.sent)
            self.ledger.rewind("events", 0, self.sent)

    def run_is_taken(self) -> None:
        run = self.ledger.take_run(self.chance.choice(SCENARIOS), self.chance.randrange(1, 6))
        if run is None:
            return
        self.runs.append(run.run_id)
        self.keeps_order(run.run_id, {id_ for id_, row in self.look().items() if row[3] == run.run_id})

    def keeps_order(self, of_run: str, taken: set[int]) -> None:
        rows = self.look()
        for id_, (scenario, patient, _, run_id) in rows.items():
            if run_id != of_run or id_ not in taken:
                continue
            if id_ in self.rules_only():
                continue  # its rules are no part of the order; that nothing else of it happens is checked with the row
            earlier = [r for i, r in rows.items() if i < id_ and r[:2] == (scenario, patient) and r[3] != run_id]
            assert not [r for r in earlier if r[2] in UNFINISHED or r[2] is State.PARKED], "a patient's order is broken"

    def runs_are_closed(self) -> None:
        self.ledger.close_finished_runs()

    def run_is_released(self) -> None:
        if self.runs:
            self.ledger.release_run(self.chance.choice(self.runs), "failed")

    # what runs that stay do

    def run_stays(self) -> None:
        if self.runs:
            run_id, rank = self.chance.choice(self.runs[-4:]), self.chance.randrange(1, 4)
            stayer = Stayer.new(run_id, rank=rank, most=2, slots=4, seconds=self.chance.choice((0.0, 60.0)))
            if self.ledger.stay(stayer, begins=True):
                self.stayers.append(stayer)

    def more_is_taken(self) -> None:
        if self.stayers:
            stayer = self.chance.choice(self.stayers[-3:])
            items = self.ledger.take_more(stayer, self.chance.randrange(1, 6), 60)
            if items:
                self.items += items
                self.keeps_order(stayer.run_id, {item.id for item in items})

    def stay_is_over(self) -> None:
        if self.chance.random() < 0.3:
            self.ledger.withdraw([self.chance.choice(SCENARIOS)])
        elif self.stayers:
            self.ledger.leave(self.chance.choice(self.stayers))

    # what workers do

    def run_is_claimed(self) -> None:
        if self.runs:
            self.items += self.ledger.claim(self.chance.choice(self.runs[-4:]), 60)

    def worker_writes(self) -> None:
        if not self.items:
            return
        item = self.chance.choice(self.items[-6:] if self.chance.random() < 0.8 else self.items)
        new = Written(("Task/1",), 1, 0)
        transient = StepFailed(ErrorClass.FHIR_UNAVAILABLE, "away")
        own = StepFailed(ErrorClass.SCENARIO_ERROR, "broken")
        waits = Waits("away", dependency=READING, rules_ran=self.chance.random() < 0.5)
        infer = self.ledger.wait if item.rules_only else self.ledger.inferred
        inference: Any = waits if item.rules_only else Inference({"drafts": []}, {})
        write = self.chance.choice(
            (
                lambda: infer(item, inference),
                lambda: infer(item, inference),
                lambda: self.ledger.wait(item, waits),
                lambda: self.ledger.written(item, new),
                lambda: self.ledger.written(item, new),
                lambda: self.ledger.rules_written(item, new),
                lambda: self.ledger.failed(item, own),
                lambda: self.ledger.failed(item, transient, dependency=READING),
                lambda: self.ledger.stale(item),
                lambda: self.ledger.give_back(item),
            )
        )
        with self.engine.begin() as connection:
            lease = connection.execute(text("SELECT lease FROM work WHERE id = :id"), {"id": item.id}).scalar()
        try:
            write()
        except LeaseLost:
            return
        assert lease == item.lease, "a worker wrote under a lease that had ended"

    # what dependencies do

    def dependency_fails(self) -> None:
        self.ledger.not_served(READING, "fhir_unavailable")

    def dependency_serves(self) -> None:
        self.ledger.served([READING])

    def somebody_tries(self) -> None:
        if self.runs:
            self.ledger.take_probe(READING, self.chance.choice(self.runs))

    # what people do

    def person_decides(self) -> None:
        for letter in self.ledger.dead_letters()[:1]:
            target = self.chance.choice((State.WAITING, State.DISCARDED))
            self.ledger.decide_dead_letter(letter.id, target, by="me", why="so")

    def switch_is_turned(self) -> None:
        if not self.ledger.switch_on("scenario", SCENARIOS[0], by="li"):
            self.ledger.switch_off("scenario", SCENARIOS[0], by="me", why="so")

    # what must be true

    def rules_only(self) -> set[int]:
        with self.engine.begin() as connection:
            return set(connection.execute(text("SELECT id FROM work WHERE rules_only")).scalars())

    def look(self) -> dict[int, Row]:
        query = text("SELECT id, scenario, patient_key, state, run_id FROM work ORDER BY id")
        with self.engine.begin() as connection:
            return {row.id: (row[1], row[2], State(row[3]), row[4]) for row in connection.execute(query)}

    def check(self) -> None:
        account = self.ledger.account()
        assert account.unaccounted == 0
        rows = self.look()
        assert self.before.keys() <= rows.keys(), "a row is gone"
        runs_of: dict[tuple[str, str], set[str | None]] = defaultdict(set)
        for id_, (scenario, patient, state, run_id) in rows.items():
            old = self.before.get(id_, (scenario, patient, State.WAITING, None))[2]
            assert state is old or state in MOVES[old], f"{old} -> {state} is no move"
            if state in IN_RUN and run_id is not None:
                runs_of[scenario, patient].add(run_id)
            if state in (State.DISPATCHED, State.RUNNING):
                assert run_id is not None, "a row is under way in no run"
        with self.engine.begin() as connection:
            assert connection.execute(_IN_CLOSED_RUNS).scalar() == 0, "a row is under way in a run that is closed"
        assert all(len(runs) == 1 for runs in runs_of.values()), "two runs have the same patient"
        self.before = rows


NO_STEPS = ("rules_only", "keeps_order")
STEPS = [name for name in vars(World) if "_" in name and not name.startswith("_") and name not in NO_STEPS]
#: Drawn more often, or little would ever be written.
USUAL = [
    "records_come",
    "run_is_taken",
    "run_is_claimed",
    "worker_writes",
    "worker_writes",
    "run_stays",
    "more_is_taken",
]


def test_the_steps_are_all_there():
    assert len(STEPS) == 15


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from(STEPS + USUAL * 2), min_size=10, max_size=60),
    chance=st.randoms(use_true_random=False),
)
@example(steps=USUAL * 50, chance=random.Random(1))
@example(steps=[*USUAL, "run_is_released", "person_decides"] * 40, chance=random.Random(2))
def test_nothing_is_lost_doubled_or_out_of_order(
    ledger_engine: Engine, make: Any, steps: list[str], chance: random.Random
):
    with ledger_engine.begin() as connection:
        connection.execute(
            text("TRUNCATE decisions, work, events, runs, progress, failures, switches, samples, breakers")
        )
    world = World(Ledger(ledger_engine, max_attempts=2, backoff=1e-9), ledger_engine, make, chance)
    for step in steps:
        getattr(world, step)()
        world.check()
