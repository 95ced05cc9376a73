"""How rows leave a run, and what an operator is told of all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pipelines.errors import ErrorClass


class Outcome(StrEnum):
    """How one row left the run."""

    WRITTEN = "written"
    STALE = "stale"
    FAILED = "failed"
    WAITS = "waits"
    HELD_BACK = "held back"
    LEASE_LOST = "lease lost"


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a run's rows. Holds no patient data.

    Attributes:
        run_id: of the Airflow run.
        outcomes: how many rows ended how.
        errors: how many failed by which class.
    """

    run_id: str
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    errors: Mapping[ErrorClass, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows that were taken."""
        return sum(self.outcomes.values())

    @property
    def failed_all(self) -> bool:
        """Whether rows failed and none came through: the scenario is in trouble, not single events."""
        came_through = set(self.outcomes) - {Outcome.FAILED, Outcome.WAITS, Outcome.HELD_BACK}
        return Outcome.FAILED in self.outcomes and not came_through

    @property
    def line(self) -> str:
        """One line for a log."""
        ended = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items()) or "nothing to do"
        failed = ", ".join(f"{error} {count}" for error, count in self.errors.items())
        return f"{self.run_id}: {ended}{f' ({failed})' if failed else ''}"
