"""The ledger at one instant, as monitoring shows it; reading it costs the same however many rows are finished."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine

from pipelines.ledger import counting_queries
from pipelines.ledger.rows import Account
from pipelines.ledger.states import State


@dataclass(frozen=True, slots=True)
class OpenWork:
    """Pieces of work of one scenario in one state that is not final.

    Attributes:
        oldest: age in seconds of the oldest of them, since its event was received.
        reachable: the same of those whose source's FHIR server does not count as down; 0 where there are none.
    """

    scenario: str
    stage: str
    state: State
    items: int
    oldest: float
    reachable: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One folded sample; see `pipelines.ledger.fold`."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """All subscriptions of one source.

    Attributes:
        gaps: times that an event number jumped.
        missed: numbers that were jumped over.
        seen: Unix time of the last numbered notification.
    """

    source: str
    gaps: int
    missed: int
    seen: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one transaction saw.

    Attributes:
        unfolded: finished rows that are not in `samples` yet.
        failures: (scenario, error class, hop of the way) -> failed tries.
        poison_open: reason -> records that are no events and that nobody has decided on.
        switches: (kind, name) of what is switched off.
        reconciled: source -> Unix time up to which it was searched.
        down: dependency -> whether it counts as down (its breaker is open, or somebody is trying it).
        held: scenarios with unfinished work that waits for a FHIR server which is down.
    """

    account: Account
    open_work: Sequence[OpenWork]
    unfolded: int
    samples: Sequence[Sample]
    failures: Mapping[tuple[str, str, str], int]
    poison_open: Mapping[str, int]
    switches: Sequence[tuple[str, str]]
    subscriptions: Sequence[SubscriptionState]
    reconciled: Mapping[str, float]
    down: Mapping[str, bool] = field(default_factory=dict)
    held: Sequence[str] = ()


def snapshot(engine: Engine) -> Snapshot:
    """Read all of it in one REPEATABLE READ transaction, so that the parts agree.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the ledger does not answer.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        return Snapshot(
            account=account(connection),
            open_work=open_work_of(connection),
            unfolded=connection.execute(counting_queries.UNFOLDED).scalar_one(),
            samples=[
                Sample(row.name, json.loads(row.labels), row.value)
                for row in connection.execute(counting_queries.SAMPLES)
            ],
            failures={
                (row.scenario, row.error_class, row.hop): row._mapping["count"]
                for row in connection.execute(counting_queries.FAILURES)
            },
            poison_open={row.reason: row.n for row in connection.execute(counting_queries.POISON_OPEN)},
            switches=[(row.kind, row.name) for row in connection.execute(counting_queries.SWITCHES)],
            subscriptions=[
                SubscriptionState(row.source, int(row.gaps), int(row.missed), row.seen)
                for row in connection.execute(counting_queries.SUBSCRIPTIONS_BY_SOURCE)
            ],
            reconciled={row.source: row.until for row in connection.execute(counting_queries.RECONCILED_BY_SOURCE)},
            down={row.dependency: row.down for row in connection.execute(counting_queries.DOWN)},
            held=connection.execute(counting_queries.HELD).scalars().all(),
        )


def open_work(engine: Engine) -> Sequence[OpenWork]:
    """What is not finished, by scenario and state.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the ledger does not answer.
    """
    with engine.connect() as connection:
        return open_work_of(connection)


def account(connection: Connection) -> Account:
    """The sum over everything, see `Account`; in the caller's transaction, which must be REPEATABLE READ."""
    sums = connection.execute(counting_queries.PROGRESS_SUMS).one()
    counts: dict[State, int] = {}
    for state, number in connection.execute(counting_queries.WORK_BY_STATE):
        counts[State(state)] = counts.get(State(state), 0) + int(number)
    return Account(**{key: int(value) for key, value in sums._mapping.items()}, work=counts)


def open_work_of(connection: Connection) -> list[OpenWork]:
    """The same in the caller's transaction."""
    return [
        OpenWork(row.scenario, row.stage, State(row.state), row.items, row.oldest, row.reachable)
        for row in connection.execute(counting_queries.OPEN_WORK)
    ]
