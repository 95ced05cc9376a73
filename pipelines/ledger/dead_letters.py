"""What people do to dead letters: parked work and poison are looked at, tried again or given up, each with a reason."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.dialects.postgresql import insert

from pipelines.errors import ErrorClass, LedgerError, PoisonReason
from pipelines.ledger import deciding_queries as queries
from pipelines.ledger.intake import record_again
from pipelines.ledger.rows import Decision, EventRow, Match, Position, Recorded
from pipelines.ledger.states import State
from pipelines.ledger.tables import disclosures
from pipelines.ledger.verbs import Verbs

_REMEDY = "`careloom dead-letters list` shows them"
#: Rows of poison that are read at a time.
_PAGE = 200


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which parked work a decision is about; None for any.

    Attributes:
        among: only work of these scenarios: those that somebody may see, or decide on.
    """

    scenario: str | None = None
    error_class: ErrorClass | None = None
    among: Collection[str] | None = None

    @property
    def _values(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "error_class": self.error_class.value if self.error_class else None,
            "among": None if self.among is None else sorted(self.among),
        }


@dataclass(frozen=True, slots=True)
class PoisonRow:
    """A Kafka record that is no event, and that nobody has decided on.

    Attributes:
        position: where it stands.
        record_at: its own time by the broker.
        reason: why it is none.
        at: when the dispatcher read it.
        copy: where its copy in the dead-letter topic is; None where the broker took none, or gave no bytes.
        tries: how often a person had it read again.
        note: of the last such try.
    """

    id: int
    position: Position
    record_at: datetime
    reason: PoisonReason
    at: datetime
    copy: Position | None
    tries: int
    note: str | None


class DeadLetters(Verbs):
    """People's verbs for what failed for good."""

    def dead_letters(self, chosen: Chosen = Chosen(), *, size: int | None = None) -> list[Row[Any]]:
        """Parked rows, oldest first: id, event_id, scenario, scenario_version, stage, error_class, error, attempts,
        tries, failing_since, failed_at, step, replay, tried_in, held_back, the times of the hops, what is known of the
        event.

        `step` is where it failed last; `held_back` counts the later rows of the same patient and scenario.

        Args:
            chosen: which.
            size: rows at most; None for all.
        """
        with self._engine.begin() as connection:
            return list(connection.execute(queries.DEAD_LETTERS, {**chosen._values, "size": size}))

    def dead_letter_count(self, chosen: Chosen) -> int:
        """How many there are."""
        with self._engine.begin() as connection:
            return int(connection.execute(queries.DEAD_LETTER_COUNT, chosen._values).scalar_one())

    def dead_letter(self, work_id: int) -> Row[Any]:
        """One of them.

        Raises:
            LedgerError: there is no such parked row.
        """
        with self._engine.begin() as connection:
            row = connection.execute(queries.DEAD_LETTER, {"id": work_id}).first()
        if row is None:
            raise LedgerError(f"work {work_id} is not a dead letter; {_REMEDY}")
        return row

    def decide_dead_letter(self, work_id: int, target: State, *, by: str, why: str) -> None:
        """Retry (`State.WAITING`) or discard (`State.DISCARDED`) a parked row.

        Raises:
            LedgerError: there is no such parked row.
        """
        with self._engine.begin() as connection:
            if connection.execute(queries.DECIDE, {"id": work_id, **_decision(target, by, why)}).rowcount != 1:
                raise LedgerError(f"work {work_id} is not a dead letter; {_REMEDY}")

    def decide_dead_letters(self, chosen: Chosen, target: State, *, by: str, why: str) -> int:
        """The same for all that are chosen; returns how many they were.

        Raises:
            LedgerError: `target` is neither.
        """
        with self._engine.begin() as connection:
            values = {**chosen._values, **_decision(target, by, why)}
            return connection.execute(queries.DECIDE_CHOSEN, values).rowcount

    def event_of(self, work_id: int) -> EventRow:
        """The event of a piece of work, in whatever state.

        Raises:
            LedgerError: there is no such work.
        """
        with self._engine.begin() as connection:
            row = connection.execute(queries.EVENT_OF_WORK, {"id": work_id}).first()
        if row is None:
            raise LedgerError(f"there is no work {work_id}; {_REMEDY}")
        return EventRow.of(row)

    # --- poison -------------------------------------------------------------------------------------------------------

    def poison(self, reason: PoisonReason | None = None) -> list[PoisonRow]:
        """Records that are no events and that nobody has decided on, oldest first."""
        with self._engine.begin() as connection:
            return [_poison(row) for row in connection.execute(queries.POISON, {"reason": _value(reason)})]

    def each_poison(self, reason: PoisonReason | None = None) -> Iterator[PoisonRow]:
        """The same, a page at a time: each row is given once, whatever is decided on it meanwhile."""
        after = 0
        while True:
            values = {"reason": _value(reason), "after": after, "size": _PAGE}
            with self._engine.begin() as connection:
                page = [_poison(row) for row in connection.execute(queries.POISON_PAGE, values)]
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].id

    def poison_count(self, reason: PoisonReason | None = None) -> int:
        """How many there are."""
        with self._engine.begin() as connection:
            return int(connection.execute(queries.POISON_COUNT, {"reason": _value(reason)}).scalar_one())

    def poison_one(self, poison_id: int) -> PoisonRow:
        """One of them.

        Raises:
            LedgerError: there is none of that number to be decided on.
        """
        with self._engine.begin() as connection:
            row = connection.execute(queries.POISON_ONE, {"id": poison_id}).first()
        if row is None:
            raise _no_poison(poison_id)
        return _poison(row)

    def discard_poison(self, poison_id: int, *, by: str, why: str) -> None:
        """Give one up. Its copy stays in the dead-letter topic until that topic's retention takes it.

        Raises:
            LedgerError: there is none of that number to be decided on.
        """
        values = {"id": poison_id, "note": f"discarded by {by}: {why}"}
        with self._engine.begin() as connection:
            if connection.execute(queries.POISON_DISCARD, values).rowcount != 1:
                raise _no_poison(poison_id)

    def discard_all_poison(self, reason: PoisonReason | None, *, by: str, why: str) -> int:
        """Give up all of a reason, or all; returns how many they were."""
        values = {"reason": _value(reason), "note": f"discarded by {by}: {why}"}
        with self._engine.begin() as connection:
            return connection.execute(queries.POISON_DISCARD_CHOSEN, values).rowcount

    def poison_recorded(
        self,
        poison_id: int,
        event: EventRow,
        matches: Sequence[Match],
        *,
        by: str,
        why: str,
        decision: Decision | None = None,
    ) -> Recorded:
        """It was read again and is an event now: write it as one, exactly once, however many try.

        Args:
            poison_id: of the poison.
            event: with the position at which its bytes can be had.
            matches: the scenarios that it starts.
            by, why: who had it read again, and why.
            decision: a person's on a draft, where it is one.

        Raises:
            LedgerError: somebody else has decided on it meanwhile.
        """
        with self._engine.begin() as connection:
            row = connection.execute(queries.POISON_LOCKED, {"id": poison_id}).first()
            if row is None:
                raise _no_poison(poison_id)
            recorded = record_again(connection, event, matches, _poison(row).position, datetime.now(UTC), decision)
            note = f"recorded by {by}: {why}"
            connection.execute(queries.POISON_RECORDED, {"id": poison_id, "note": note})
            return recorded

    def poison_again(self, poison_id: int, reason: PoisonReason, *, by: str, why: str) -> None:
        """It was read again and still is none."""
        values = {"id": poison_id, "reason": reason.value, "note": f"tried by {by}: {why}"}
        with self._engine.begin() as connection:
            connection.execute(queries.POISON_TRIED, values)

    # --- who looked ---------------------------------------------------------------------------------------------------

    def disclosed(self, what: str, *, by: str, why: str) -> None:
        """Write down that somebody is about to be shown patient data; to be called before it is.

        Args:
            what: which piece of work or record, never its content.
            by, why: who looks, and why.
        """
        with self._engine.begin() as connection:
            connection.execute(insert(disclosures).values(what=what, by=by, why=why, at=datetime.now(UTC)))


def _decision(target: State, by: str, why: str) -> dict[str, str]:
    if target not in (State.WAITING, State.DISCARDED):
        raise LedgerError(f"a dead letter can be retried or discarded, not made {target}")
    return {"state": target.value, "note": f"{target.value} by {by}: {why}"}


def _value(reason: PoisonReason | None) -> str | None:
    return reason.value if reason else None


def _no_poison(poison_id: int) -> LedgerError:
    return LedgerError(f"p{poison_id} is no poison that is to be decided on; {_REMEDY}")


def _poison(row: Row[Any]) -> PoisonRow:
    copy = None if row.copy_topic is None else Position(row.copy_topic, row.copy_partition, row.copy_offset)
    return PoisonRow(
        id=row.id,
        position=Position(row.topic, row.partition, row.offset),
        record_at=row.record_at,
        reason=PoisonReason(row.reason),
        at=row.at,
        copy=copy,
        tries=row.tries,
        note=row.note,
    )
