"""What is known of the dependencies that work rests on: a breaker for each, shared by all processes.

    closed ──> open ──> half_open ──> closed        failures of several in a row; a wait; success of the one that tries
                ^           │
                └───────────┘                       the one that tries failed as well

Tasks are short-lived processes, so the state lives here. A closed breaker costs nothing: who uses the dependency keeps
a copy for a second (`pipelines.runner.breaker`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, text

from pipelines.failures.policy import BREAKS_AFTER
from pipelines.ledger.verbs import Verbs

#: Seconds that the one that tries has, when its run does not end before: a model's longest answer and some more.
PROBE_SECONDS = 180.0


class BreakerState(StrEnum):
    """Whether a dependency is asked."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of one dependency.

    Attributes:
        dependency: its name, see `pipelines.failures.dependencies`.
        failures: in a row, since its last success.
        error_class: of the last failure; None after a success.
        opened_at: since when it counts as down.
        retry_at: before it nothing is tried.
        probe: run that may try while it is half-open.
        succeeded_at: when it last served somebody, within a second or so.
    """

    dependency: str
    state: BreakerState
    failures: int = 0
    error_class: str | None = None
    opened_at: datetime | None = None
    retry_at: datetime | None = None
    probe: str | None = None
    succeeded_at: datetime | None = None

    @property
    def line(self) -> str:
        """What is known of one that is down, for an operator."""
        since = f"since {self.opened_at:%H:%M:%S}" if self.opened_at else ""
        again = f"tried again at {self.retry_at:%H:%M:%S}" if self.retry_at else ""
        return f"{since} ({self.error_class}, {self.failures} failures in a row; {again})"

    @property
    def clean(self) -> bool:
        """Whether a success would change nothing that matters."""
        return self.state is BreakerState.CLOSED and not self.failures


class Breaking(Verbs):
    """The verbs of breakers. A dependency that is not known is closed."""

    def breakers(self) -> list[Breaker]:
        """All that are known."""
        with self._at_once.connect() as connection:
            return all_breakers(connection)

    def served(self, dependencies: Collection[str]) -> None:
        """These have just done what they were asked for: their breakers close."""
        with self._at_once.connect() as connection:
            connection.execute(_SERVED, {"dependencies": sorted(dependencies)})

    def not_served(
        self, dependency: str, error_class: str, *, work: int | None = None, retry_after: float | None = None
    ) -> Breaker:
        """A dependency did not do what it was asked for. Returns what is known of it now.

        Args:
            dependency: its name.
            error_class: what the failure means.
            work: the piece of work that asked; None where it was none, which speaks for several.
            retry_after: seconds that the dependency asked to be left alone.
        """
        with self._engine.begin() as connection:
            return self._not_served(connection, dependency, error_class, work, None, retry_after)

    def take_probe(self, dependency: str, run_id: str) -> bool:
        """Whether this run may try a dependency that was down; at most one may at a time."""
        values = {"dependency": dependency, "run_id": run_id, "seconds": PROBE_SECONDS}
        with self._at_once.connect() as connection:
            return connection.execute(_TAKE_PROBE, values).rowcount == 1

    def _not_served(
        self,
        connection: Connection,
        dependency: str,
        error_class: str,
        work: int | None,
        run_id: str | None,
        retry_after: float | None,
    ) -> Breaker:
        """As `not_served`, in the caller's transaction; `run_id` is that of the work."""
        values = {"dependency": dependency, "error_class": error_class, "work": work}
        known = connection.execute(_NOT_SERVED, values).one()
        breaks = known.state == BreakerState.CLOSED and known.failures >= BREAKS_AFTER and known.several
        again = known.state == BreakerState.HALF_OPEN and known.probe in (run_id, None)
        if not breaks and not again:
            return _breaker(known)
        # at least half of it: a breaker that is open for no time is none
        longest = self._pace.first * 2.0 ** min(known.openings, 32)
        wait = max(self._pace.wait(known.openings, retry_after), min(longest, self._pace.cap) / 2)
        return _breaker(connection.execute(_OPEN, {"dependency": dependency, "wait": wait}).one())


def all_breakers(connection: Connection) -> list[Breaker]:
    """All that are known, in the caller's transaction."""
    return [_breaker(row) for row in connection.execute(_ALL)]


def _breaker(row: object) -> Breaker:
    fields = {name: getattr(row, name) for name in Breaker.__slots__}
    return Breaker(**{**fields, "state": BreakerState(fields["state"])})


_COLUMNS = "dependency, state, failures, error_class, opened_at, retry_at, probe, succeeded_at"

_ALL = text(f"SELECT {_COLUMNS} FROM breakers ORDER BY dependency")  # noqa: S608 our own constant

# In one order by all, so that two that have served the same never deadlock.
_SERVED = text(
    """
    INSERT INTO breakers (dependency, succeeded_at)
    SELECT dependency, clock_timestamp() FROM unnest(CAST(:dependencies AS text[])) AS served (dependency) ORDER BY 1
    ON CONFLICT (dependency) DO UPDATE SET state = 'closed', succeeded_at = excluded.succeeded_at, failures = 0,
        several = false, last_work = NULL, error_class = NULL, opened_at = NULL, openings = 0, retry_at = NULL,
        probe = NULL, probe_until = NULL
    """
)

_NOT_SERVED = text(
    f"""
    INSERT INTO breakers AS b (dependency, failures, several, last_work, error_class)
    VALUES (:dependency, 1, CAST(:work AS bigint) IS NULL, :work, :error_class)
    ON CONFLICT (dependency) DO UPDATE SET
        failures = b.failures + 1,
        several = b.several OR excluded.several OR (b.failures > 0 AND b.last_work <> excluded.last_work),
        last_work = excluded.last_work, error_class = excluded.error_class
    RETURNING {_COLUMNS}, several, openings
    """  # noqa: S608 our own constant
)

_OPEN = text(
    f"""
    UPDATE breakers SET state = 'open', opened_at = coalesce(opened_at, now()), openings = openings + 1,
        retry_at = clock_timestamp() + make_interval(secs => :wait), probe = NULL, probe_until = NULL
    WHERE dependency = :dependency
    RETURNING {_COLUMNS}
    """  # noqa: S608 our own constant
)

_TAKE_PROBE = text(
    """
    UPDATE breakers SET state = 'half_open', probe = :run_id,
        probe_until = now() + make_interval(secs => :seconds)
    WHERE dependency = :dependency AND (
        (state = 'open' AND retry_at <= now())
        OR (state = 'half_open' AND (probe_until <= now()
            OR NOT EXISTS (SELECT 1 FROM runs WHERE run_id = probe AND closed_at IS NULL))))
    """
)
