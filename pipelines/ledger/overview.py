"""What waits and why, how each scenario stands, and how its objective is met now: read-only, and never patient data.

`careloom top` and the page in Airflow's UI show this. What the ledger cannot know (which scenarios are installed, which
DAGs are paused, whether a model has room) is brought by who asks: see `Surroundings` and `pipelines.surroundings`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Engine, text

from pipelines.failures.dependencies import AIRFLOW
from pipelines.ledger import counting_queries, overview_queries
from pipelines.ledger.breaking import Breaker, BreakerState, all_breakers
from pipelines.ledger.snapshot import OpenWork, open_work_of
from pipelines.ledger.states import State
from pipelines.ledger.tables import switches


class Why(StrEnum):
    """Why pieces of work wait that are in no run: a closed set.

    The first five hold a whole scenario; the others hold a row, also after the scenario may go on.
    """

    EVERYTHING_OFF = "everything_off"  # somebody has switched everything off
    SCENARIO_OFF = "scenario_off"  # or this scenario
    NOT_INSTALLED = "not_installed"  # no plugin that is enabled has this scenario
    NO_DAG = "no_dag"  # Airflow has no DAG of it that can run
    PAUSED = "paused"  # its DAG is paused in Airflow
    BEHIND_PARKED = "behind_parked"  # an earlier one of the same patient is a dead letter
    DEPENDENCY_DOWN = "dependency_down"  # what it needs is down
    MODEL_OFF = "model_off"  # its models are switched off
    BACKOFF = "backoff"  # its last try failed: it is tried again later
    BEHIND_RUNNING = "behind_running"  # an earlier one of the same patient is being worked on
    BEHIND_WAITING = "behind_waiting"  # an earlier one of the same patient waits
    AIRFLOW_DOWN = "airflow_down"  # no run can be asked for
    RUNS_FULL = "runs_full"  # as many runs of it are under way as may be
    MODEL_FULL = "model_full"  # its model has no room for more
    READY = "ready"  # nothing: the next run takes it


class Condition(StrEnum):
    """How a scenario stands: a closed set."""

    RUNNING = "running"
    PAUSED = "paused"  # in Airflow
    OFF = "off"  # it, or everything
    NO_DAG = "no_dag"
    NOT_INSTALLED = "not_installed"  # it has work in the ledger all the same


_HELD = {
    Why.EVERYTHING_OFF: Condition.OFF,
    Why.SCENARIO_OFF: Condition.OFF,
    Why.NOT_INSTALLED: Condition.NOT_INSTALLED,
    Why.NO_DAG: Condition.NO_DAG,
    Why.PAUSED: Condition.PAUSED,
}


@dataclass(frozen=True, slots=True)
class Promise:
    """What an installed scenario promises.

    Attributes:
        deadline: seconds from event to written draft.
        share: of its events that are to be drafted within it, between 0 and 1.
        models: those that its route names.
    """

    scenario: str
    stage: str
    deadline: float
    share: float
    models: tuple[str, ...] = ()


def has_room(scenario: str, oldest: float) -> str:
    """Nobody asks the models."""
    return ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the ledger cannot know.

    Attributes:
        promises: of the scenarios that are installed and enabled.
        paused: DAG that can run -> whether it is paused; None where nobody has asked Airflow.
        max_open_runs: runs under way of one scenario at most.
        lacks: (scenario, age in seconds of its oldest ready row) -> why its model takes no more, "" where it does.
    """

    promises: Sequence[Promise] = ()
    paused: Mapping[str, bool] | None = None
    max_open_runs: int = 2
    lacks: Callable[[str, float], str] = has_room


@dataclass(frozen=True, slots=True)
class Wait:
    """Pieces of work of one scenario that wait for the same reason.

    Attributes:
        what: the dependency, the class of the last failure, or the models; "" where the reason says it all.
        oldest: age in seconds of the oldest of them, since its event was received.
        until: when the first of them is tried again, where that is known.
    """

    scenario: str
    why: Why
    items: int
    oldest: float
    what: str = ""
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Parked:
    """Dead letters of one scenario and class.

    Attributes:
        oldest: seconds since the first of them failed for good.
    """

    scenario: str
    error_class: str
    items: int
    oldest: float


@dataclass(frozen=True, slots=True)
class Switch:
    """Something that is switched off: kind "everything" (name ""), "scenario" or "model"."""

    kind: str
    name: str
    by: str
    why: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Timeliness:
    """What became of the events of some time, as far as it is decided.

    Attributes:
        met: drafted within the deadline.
        missed: drafted later, given up, or late already.
        discarded: those of `missed` that a person gave up.
    """

    met: int = 0
    missed: int = 0
    discarded: int = 0

    @property
    def share(self) -> float | None:
        """Of the events that were drafted in time; None where nothing is decided."""
        decided = self.met + self.missed
        return self.met / decided if decided else None


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the events of some time became drafts.

    Attributes:
        per_minute: drafts written within the last minute.
        written: of the events of that time.
        p50, p95: seconds from event to written draft.
    """

    per_minute: int
    written: int
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class ScenarioNow:
    """One scenario, now.

    Attributes:
        promise: None for one that is not installed.
        waiting, running, parked: pieces of work in no run, in a run, and waiting for a person.
        oldest: age in seconds of the oldest that is waiting or running; None where there is none.
        staying: runs that stay for further work, with or without any now.
    """

    scenario: str
    stage: str
    condition: Condition
    promise: Promise | None
    waiting: int = 0
    running: int = 0
    parked: int = 0
    oldest: float | None = None
    staying: int = 0


@dataclass(frozen=True, slots=True)
class Overview:
    """All of it at one instant.

    Attributes:
        at: by the ledger's clock.
        scenarios: the installed ones in their order, then those that only the ledger knows.
        waits: by scenario; the reasons in the order of `Why`.
        breakers: every dependency that was ever needed, also those that are well.
        poison: reason -> records that are no events and that nobody has decided on.
    """

    at: datetime
    scenarios: Sequence[ScenarioNow]
    waits: Sequence[Wait]
    parked: Sequence[Parked]
    switches: Sequence[Switch]
    breakers: Sequence[Breaker]
    poison: Mapping[str, int] = field(default_factory=dict)

    @property
    def down(self) -> Sequence[Breaker]:
        """The dependencies that count as down."""
        return [breaker for breaker in self.breakers if breaker.state is not BreakerState.CLOSED]


def overview(engine: Engine, around: Surroundings) -> Overview:
    """Read what is not finished, in one REPEATABLE READ transaction; costs the same however many rows are finished.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the ledger does not answer.
    """
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        read = _Read.of(connection)
    return Overview(
        at=read.at,
        scenarios=_scenarios_now(read, around),
        waits=sorted((_named(wait, read, around) for wait in read.waits), key=_in_order),
        parked=read.parked,
        switches=read.switches,
        breakers=read.breakers,
        poison=read.poison,
    )


def timeliness(engine: Engine, promises: Sequence[Promise], window: float) -> Mapping[str, Timeliness]:
    """How objectives are met: scenario -> what became of the events that came within the last `window` seconds.

    Costs as much as there are events in that time: keep what it says for a while.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the ledger does not answer.
    """
    values = {
        "scenarios": [promise.scenario for promise in promises],
        "seconds": [promise.deadline for promise in promises],
        "window": window,
    }
    with engine.connect() as connection:
        rows = connection.execute(overview_queries.TIMELINESS, values)
        return {row.scenario: Timeliness(row.met, row.missed, row.discarded) for row in rows}


def pace(engine: Engine, window: float) -> Mapping[str, Pace]:
    """How fast drafts are written: scenario -> pace of the events that came within the last `window` seconds.

    Costs as `timeliness` does. Scenarios that have written nothing are left out; replays do not count.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the ledger does not answer.
    """
    with engine.connect() as connection:
        rows = connection.execute(overview_queries.PACE, {"window": window})
        return {row.scenario: Pace(row.per_minute, row.written, float(row.p50), float(row.p95)) for row in rows}


@dataclass(frozen=True, slots=True)
class _Read:
    """What the ledger says by itself."""

    at: datetime
    open_work: Sequence[OpenWork]
    waits: Sequence[Wait]
    parked: Sequence[Parked]
    switches: Sequence[Switch]
    breakers: Sequence[Breaker]
    poison: Mapping[str, int]
    open_runs: Mapping[str, int]
    staying: Mapping[str, int]

    @classmethod
    def of(cls, connection: Connection) -> _Read:
        runs = connection.execute(overview_queries.OPEN_RUNS).all()
        return cls(
            at=connection.execute(text("SELECT now()")).scalar_one(),
            open_work=open_work_of(connection),
            waits=[_wait(row) for row in connection.execute(overview_queries.WAITS)],
            parked=[
                Parked(row.scenario, row.error_class or "", row.items, row.oldest)
                for row in connection.execute(overview_queries.PARKED)
            ],
            switches=[Switch(**row._mapping) for row in connection.execute(switches.select().order_by("since"))],
            breakers=all_breakers(connection),
            poison={row.reason: row.n for row in connection.execute(counting_queries.POISON_OPEN)},
            open_runs={row.scenario: row.n for row in runs},
            staying={row.scenario: row.staying for row in runs if row.staying},
        )

    def off(self, kind: str, name: str = "") -> bool:
        """Whether somebody has switched it off."""
        return any((switch.kind, switch.name) == (kind, name) for switch in self.switches)


def _wait(row: Any) -> Wait:
    return Wait(row.scenario, Why(row.why), row.items, row.oldest, row.what or "", row.until)


def _in_order(wait: Wait) -> tuple[str, int, str]:
    return wait.scenario, list(Why).index(wait.why), wait.what


def _scenarios_now(read: _Read, around: Surroundings) -> list[ScenarioNow]:
    promises = {promise.scenario: promise for promise in around.promises}
    only_here = sorted({part.scenario for part in read.open_work} - promises.keys())
    found = []
    for scenario in (*promises, *only_here):
        promise, parts = promises.get(scenario), [part for part in read.open_work if part.scenario == scenario]
        why = _held(scenario, read, around)
        in_no_run = sum(wait.items for wait in read.waits if wait.scenario == scenario)
        unfinished = [part for part in parts if part.state is not State.PARKED]
        items = sum(part.items for part in unfinished)
        found.append(
            ScenarioNow(
                scenario=scenario,
                stage=promise.stage if promise else scenario.partition(".")[0],
                condition=_HELD[why] if why else Condition.RUNNING,
                promise=promise,
                waiting=in_no_run,
                running=items - in_no_run,
                parked=sum(part.items for part in parts if part.state is State.PARKED),
                oldest=max((part.oldest for part in unfinished), default=None),
                staying=read.staying.get(scenario, 0),
            )
        )
    return found


def _held(scenario: str, read: _Read, around: Surroundings) -> Why | None:
    """What holds a whole scenario."""
    if read.off("everything"):
        return Why.EVERYTHING_OFF
    if read.off("scenario", scenario):
        return Why.SCENARIO_OFF
    if scenario not in {promise.scenario for promise in around.promises}:
        return Why.NOT_INSTALLED
    if around.paused is None:
        return None
    if scenario not in around.paused:
        return Why.NO_DAG
    return Why.PAUSED if around.paused[scenario] else None


def _named(wait: Wait, read: _Read, around: Surroundings) -> Wait:
    """With what a row of the ledger alone does not tell."""
    if wait.why is Why.MODEL_OFF:
        models = next((promise.models for promise in around.promises if promise.scenario == wait.scenario), ())
        return replace(wait, what=", ".join(name for name in models if read.off("model", name)))
    if wait.why is not Why.READY:
        return wait
    if held := _held(wait.scenario, read, around):
        return replace(wait, why=held)
    for breaker in read.breakers:
        if breaker.dependency == AIRFLOW and breaker.state is not BreakerState.CLOSED:
            return replace(wait, why=Why.AIRFLOW_DOWN, what=breaker.error_class or "")
    stays = wait.scenario in read.staying  # it takes what is ready, however many are open
    if not stays and read.open_runs.get(wait.scenario, 0) >= around.max_open_runs:
        return replace(wait, why=Why.RUNS_FULL)
    lacks = around.lacks(wait.scenario, wait.oldest)
    return replace(wait, why=Why.MODEL_FULL, what=lacks) if lacks else wait
