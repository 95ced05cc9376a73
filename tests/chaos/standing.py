"""Runs that stand (`runner.standing`) are killed -9: while they wait for a row, and while they carry one."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from account import FINAL, Outcome
from cases import NOTE, Case
from forks import Child
from house import House
from options import Options
from servers import until
from sqlalchemy import text
from trial import Trial, trial

#: What stands lives longer than all that is done to it; a run that only stays makes room for the next one soon. Rows
#: wait for the one that stands: that another run takes them at once would be no fault, and no trial either.
_SETTINGS = {
    "runner": {"standing": [NOTE], "stay": 0.3, "stay_life": 600.0},
    "dispatcher": {"linger": 0.5},
}
_SPOTS = ("took", "asked", "inferred", "sending", "leaving", "sent", "written")
#: Seconds until another one stands: a dispatcher lets 30 pass between two, and the stay of a dead one runs out first.
_ANOTHER = 90.0

_STANDS = text(
    "SELECT run_id, stayer FROM runs WHERE size = 0 AND closed_at IS NULL AND NOT withdrawn AND stayer IS NOT NULL"
    " AND stays_until > clock_timestamp()"
)
_OPEN = text("SELECT count(*) FROM runs WHERE size = 0 AND closed_at IS NULL")
_RUN_OF = text("SELECT tried_in FROM work WHERE event_id = :event_id")


@dataclass(frozen=True)
class _Stands:
    """A run that stands, as one try of its task says.

    Attributes:
        run_id: of the run.
        stayer: of the try.
        child: its process.
    """

    run_id: str
    stayer: str
    child: Child


def standing_runs(options: Options, say: Callable[[str], None]) -> Iterator[Outcome]:
    """The process of a run that stands is killed -9; its second try stands, or carries on, or another run stands."""
    with House(settings=_SETTINGS, say=say) as house:
        name = "run that stands killed -9 while idle, then with a row"
        with trial(house, options, name, streaming=False) as told:
            for spot in _SPOTS[:1] if options.quick else _SPOTS:
                _idle_then_with_a_row(told, f"runner.{spot}")
        yield told.outcome
        name = "run that stands killed -9 with a row, which its second try carries on"
        with trial(house, options, name, streaming=False) as told:
            for _ in range(1 if options.quick else 3):
                _with_a_row(told)
        yield told.outcome


def _idle_then_with_a_row(told: Trial, spot: str) -> None:
    """Killed while idle: its second try stands. Killed at the spot: the row comes through. Then another one stands."""
    house, first = told.house, _that_stands(told.house)
    house.plan = lambda role: spot if role == "carry" else ""
    _kill(told, first)
    killed_at = time.monotonic()
    second = _that_stands(house, other_than=first.stayer, patience=30)
    told.outcome.progress.append(time.monotonic() - killed_at)
    house.plan = lambda role: ""
    told.outcome.expect("whether the second try stands for the same run", int(second.run_id == first.run_id), 1)
    cases = _sent(told, 4)
    killed = second.child.ended.wait(30) and second.child.killed
    carried = any(_carried(house, case, second) for case in cases)
    told.outcome.expect(f"whether it died at {spot} over a row", int(killed and carried), 1)
    told.outcome.injections += 1
    _come_through(told, cases)
    _another_stands_and_carries(told, second)


def _with_a_row(told: Trial) -> None:
    """Killed while the model takes its time over a row; the run's second try carries it on; then another stands."""
    house, first = told.house, _that_stands(told.house)
    asked, house.model.fault = house.model.asked, lambda word: "slow"
    [case] = _sent(told, 1)
    until(lambda: house.model.asked > asked, "the model is asked", 30)
    _kill(told, first)
    house.model.fault = lambda word: ""
    told.outcome.expect("whether it had the row", int(_carried(house, case, first)), 1)
    _come_through(told, [case])
    told.outcome.expect("whether its second try carried the row on", int(_carried(house, case, first)), 1)
    told.outcome.expect("runs that had it", len(_runs_of(house, case)), 1)
    _another_stands_and_carries(told, first)


def _that_stands(house: House, *, other_than: str = "", patience: float = _ANOTHER) -> _Stands:
    """Wait for the one that stands and its process, which does nothing."""
    found: list[_Stands] = []

    def stands() -> bool:
        with house.engine.connect() as connection:
            for row in connection.execute(_STANDS):
                child = house.airflow.runs[row.run_id].child
                if row.stayer != other_than and child is not None and not child.ended.is_set():
                    found.append(_Stands(row.run_id, row.stayer, child))
        return bool(found)

    until(stands, "a run stands", patience)
    return found[-1]


def _kill(told: Trial, victim: _Stands) -> None:
    """kill -9 its process as it is."""
    victim.child.signal(signal.SIGKILL)
    told.outcome.expect("whether it was killed", int(victim.child.ended.wait(20) and victim.child.killed), 1)
    told.outcome.injections += 1


def _another_stands_and_carries(told: Trial, dead: _Stands) -> None:
    """One more run stands, that one alone, and the next row is its."""
    house = told.house
    until(lambda: _that_stands(house).run_id != dead.run_id, "another run stands", _ANOTHER)
    another = _that_stands(house)
    with house.engine.connect() as connection:
        told.outcome.expect("runs that stand at the same time", connection.execute(_OPEN).scalar_one(), 1)
    [case] = _sent(told, 1)
    _come_through(told, [case])
    told.outcome.expect("whether the one that stands now carried the next row", int(_carried(house, case, another)), 1)


def _sent(told: Trial, count: int) -> list[Case]:
    """So many at the same time, of as many patients."""
    cases = [told.house.cases.one(NOTE) for _ in range(count)]
    told.cases += cases
    told.house.sender.send(cases)
    return cases


def _come_through(told: Trial, cases: list[Case]) -> None:
    """Until nothing is left to do for them."""
    wanted = [case.event_id for case in cases]

    def done() -> bool:
        states = told.house.states(wanted)
        return len(states) == len(wanted) and all(s in FINAL for rows in states.values() for _, s, _ in rows)

    told.outcome.progress.append(until(done, "the rows come through", 60))


def _carried(house: House, case: Case, run: _Stands) -> bool:
    return run.run_id in _runs_of(house, case)


def _runs_of(house: House, case: Case) -> list[str]:
    with house.engine.connect() as connection:
        return list(connection.execute(_RUN_OF, {"event_id": case.event_id}).scalar() or ())
