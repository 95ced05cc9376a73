"""Which transactions may be on their way to a FHIR server: marked right before each, taken off when it was answered.

A mark that stays is a transaction nobody knows the end of: its answer was lost, or its worker. The newer version of the
same resource finds it in its own confirmation and fences it off before it writes (docs/decisions/011).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Text, cast, func

from monitoring import metrics
from pipelines.errors import LeaseLost
from pipelines.ledger import counting_queries, version_queries
from pipelines.ledger.rows import WorkItem
from pipelines.ledger.tables import work
from pipelines.ledger.verbs import Verbs


@dataclass(frozen=True, slots=True)
class Sending:
    """A transaction that is about to leave.

    Attributes:
        part: "rules" or "model".
        resource_type, name: of its first draft, by which it can be fenced off.
    """

    part: str
    resource_type: str
    name: str

    def mark(self, item: WorkItem) -> str:
        """As the ledger keeps it: one for each part and lease, so that every try without an answer leaves its own."""
        return f"{self.part} {self.resource_type} {self.name} {item.lease}"


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Transactions of an older version that may still be on their way.

    Attributes:
        work_id: of the older version's row.
        identity: of its result.
        sending: what they would write.
        marks: theirs.
    """

    work_id: int
    identity: str
    sending: Sending
    marks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What was found right before a transaction leaves.

    Attributes:
        superseded: a newer version of the resource came: nothing may be written.
        unsettled: of older versions in the same scenario.
    """

    superseded: bool
    unsettled: tuple[Unsettled, ...] = ()


class OnWire(Verbs):
    """The runner's verbs around a transaction."""

    def confirm(self, item: WorkItem, lease_seconds: float, sending: Sending) -> Confirmed:
        """Keep a row's lease right before something is written elsewhere, and mark that it may be on its way.

        An earlier transaction of the same part under the same lease must have been answered.

        Raises:
            LeaseLost: the row is another worker's; nothing may be written.
        """
        values = {"id": item.id, "lease": item.lease, "seconds": lease_seconds, "mark": sending.mark(item)}
        with self._at_once.connect() as connection:
            rows = connection.execute(version_queries.CONFIRM, values).all()
        if not rows:
            raise LeaseLost(f"work {item.id} is no longer leased to this worker; nothing was written")
        older = [_unsettled(row) for row in rows if row.older_id is not None]
        return Confirmed(rows[0].superseded, tuple(one for several in older for one in several))

    def fenced(self, unsettled: Unsettled, outcome: metrics.FenceOutcome) -> None:
        """An older version's transactions can no longer change anything, or are known to be past fencing."""
        with self._engine.begin() as connection:
            connection.execute(version_queries.FENCED, {"id": unsettled.work_id, "marks": list(unsettled.marks)})
            counted = {"names": [metrics.WRITE_FENCES.name], "labels": [f'{{"outcome":"{outcome}"}}'], "values": [1.0]}
            connection.execute(counting_queries.ADD_SAMPLES, counted)


def without(marks: Iterable[str]) -> Mapping[str, Any]:
    """The column's new value when these transactions were answered; none where there are none."""
    value: Any = work.c.on_wire
    for mark in sorted(marks):
        value = func.array_remove(value, cast(mark, Text))
    return {} if value is work.c.on_wire else {"on_wire": value}


def _unsettled(row: Any) -> Sequence[Unsettled]:
    """One for each transaction that could arrive; several tries of the same are one."""
    marks: dict[Sending, list[str]] = {}
    for mark in row.on_wire:
        part, resource_type, name, _ = mark.split(" ")
        marks.setdefault(Sending(part, resource_type, name), []).append(mark)
    return [Unsettled(row.older_id, row.identity, sending, tuple(each)) for sending, each in marks.items()]
