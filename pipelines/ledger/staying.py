"""Runs that stay after their rows are done and take further ones themselves, as long as nobody needs their place.

A stay is a lease on the run, kept by the process that stays and told by the database's clock: who dies, is paused or
cut off stays no longer. It is fenced three times: by the process's own token (another try of the run's task begins a
stay of its own), by the run being open, and by the dispatcher, which may withdraw it.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy.dialects.postgresql import insert

from pipelines.ledger import staying_queries, taking_queries
from pipelines.ledger.rows import Run, WorkItem, work_item
from pipelines.ledger.tables import runs
from pipelines.ledger.taking import CLOCK, new_run_id, ready
from pipelines.ledger.verbs import Verbs

#: Seconds that a posted run may wait for its task before stayers make room for it.
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Stayer:
    """A process that stays for a run.

    Attributes:
        run_id: the run.
        rank: before whom it goes: a higher one first.
        most: runs that stay at the same time at most, over all scenarios.
        slots: tasks that Airflow runs at the same time for careloom.
        seconds: that a stay lasts when it is not said again.
        token: tells it from another try of the same run.
    """

    run_id: str
    rank: int
    most: int
    slots: int
    seconds: float
    token: str

    @classmethod
    def new(cls, run_id: str, *, rank: int, most: int, slots: int, seconds: float) -> Stayer:
        """One with a token of its own."""
        return cls(run_id, rank, most, slots, seconds, uuid.uuid4().hex)


class Staying(Verbs):
    """The verbs of runs that stay: the process's own, and the dispatcher's `stand` and `withdraw`."""

    def stand(self, scenario: str) -> Run | None:
        """Decide on a run without rows, which stays and takes what comes.

        Returns:
            the run, to be posted; None where one of the scenario is open, or it is switched off.
        """
        named = {"scenario": scenario}
        with self._engine.begin() as connection:
            connection.execute(taking_queries.LOCK_SCENARIO, named)
            if connection.execute(taking_queries.SWITCHED_OFF, named).first():
                return None
            if connection.execute(staying_queries.OPEN_RUN, named).first():
                return None
            run_id = new_run_id()
            connection.execute(insert(runs).values(run_id=run_id, scenario=scenario, size=0, decided_at=CLOCK))
        return Run(run_id, scenario, 0, posted=False)

    def stands(self, run_id: str, seconds: float) -> str | None:
        """A task of a run without rows has begun: for which scenario it stands, for so many seconds until it stays.

        Returns:
            None where the run was not decided on so, or is over.
        """
        with self._at_once.connect() as connection:
            found = connection.execute(staying_queries.STANDS, {"run_id": run_id, "seconds": seconds})
            scenario: str | None = found.scalar_one_or_none()
            return scenario

    def stay(self, stayer: Stayer, *, begins: bool = False) -> bool:
        """Say that the process is there and takes rows; whether it may.

        Args:
            stayer: who.
            begins: whether it is the first time: another process that stays for the same run is displaced.
        """
        values = {
            "run_id": stayer.run_id,
            "stayer": stayer.token,
            "rank": stayer.rank,
            "most": stayer.most,
            "slots": stayer.slots,
            "seconds": stayer.seconds,
            "begins": begins,
            "patience": PATIENCE,
        }
        with self._at_once.connect() as connection:
            return connection.execute(staying_queries.STAY, values).rowcount == 1

    def take_more(self, stayer: Stayer, size: int, lease_seconds: float) -> list[WorkItem] | None:
        """Bind up to `size` ready rows of the run's scenario to it, under a lease; by the rules of `take_run`.

        A row over which a worker was lost is left to a run of its own, and what is behind it until it has one.

        Returns:
            the rows; None where the stay is over, and nothing may be taken.
        """
        with self._engine.begin() as connection:
            run = {"run_id": stayer.run_id, "stayer": stayer.token}
            scenario = connection.execute(staying_queries.HOLD, run).scalar_one_or_none()
            if scenario is None:
                return None
            found = ready(connection, scenario, size, blameless=True)
            if not found.ids:
                return []
            values = {
                "run_id": stayer.run_id,
                "ids": found.ids,
                "rules_only": found.rules_only,
                "lease": uuid.uuid4().hex,
                "seconds": lease_seconds,
            }
            rows = connection.execute(taking_queries.TAKE, values).all()
            connection.execute(staying_queries.TAKEN, {"run_id": stayer.run_id, "number": len(rows)})
        return sorted((work_item(row) for row in rows), key=lambda item: item.id)

    def leave(self, stayer: Stayer) -> None:
        """The process takes nothing any more; what it has taken it finishes."""
        with self._at_once.connect() as connection:
            connection.execute(staying_queries.LEAVE, {"run_id": stayer.run_id, "stayer": stayer.token})

    def withdraw(self, scenarios: Collection[str] | None = None) -> int:
        """Tell the open runs of these scenarios, or all, to take no more; returns how many of them stayed."""
        values = {"scenarios": None if scenarios is None else sorted(scenarios)}
        with self._engine.begin() as connection:
            told = connection.execute(staying_queries.WITHDRAW, values).all()
            if told:
                names = sorted({run.scenario for run in told})
                connection.execute(staying_queries.NOTIFY, {"scenarios": names})
        return sum(run.stayed for run in told)
