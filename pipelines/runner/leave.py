"""A row's leave to write: asked for right before each transaction, and told when that one was answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.metrics import FenceOutcome
from pipelines.ledger.calls import Turns, called
from pipelines.ledger.on_wire import Sending, Unsettled
from pipelines.ledger.rows import WorkItem
from pipelines.ledger.store import Ledger


class Overtaken(Exception):
    """A newer version of the row's resource came: no fault of anybody's, and nothing is written for this one."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Of one leased row.

    Attributes:
        ledger: where it is from.
        item: the row.
        lease: seconds that its lease is kept for.
        turns: of the run's rows at the ledger.
    """

    ledger: Ledger
    item: WorkItem
    lease: float
    turns: Turns

    async def confirm(self, sending: Sending) -> Sequence[Unsettled]:
        """Make sure that the row is still ours, and the newest version, and mark that its transaction leaves.

        A worker that was paused, or that has waited for another's transaction to pass, finds out here.

        Returns:
            transactions of older versions that may be on their way too: to be fenced off, and then to be asked again.

        Raises:
            LeaseLost: another worker has it.
            Overtaken: a newer version of its resource came; nothing may be written for this one.
            LedgerError: the ledger does not answer.
        """
        confirmed = await self.turns.called(self.ledger.confirm, self.item, self.lease, sending)
        if confirmed.superseded:
            raise Overtaken(f"work {self.item.id} is of a version that was overtaken; nothing was written")
        self.item.answered.discard(sending.mark(self.item))
        return confirmed.unsettled

    def answered(self, sending: Sending) -> None:
        """The server has said what became of it: the ledger's next statement about the row takes the mark off."""
        self.item.answered.add(sending.mark(self.item))

    async def fenced(self, unsettled: Unsettled, outcome: FenceOutcome) -> None:
        """An older version's transaction was fenced off, as far as the server lets it be."""
        await called(self.ledger.fenced, unsettled, outcome)
