"""Working through a run's leased rows: patients side by side, each one's rows in order, every end accounted for."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from pipelines.errors import ErrorClass, LeaseLost, LedgerError, StepFailed
from pipelines.ledger.rows import WorkItem
from pipelines.ledger.store import Ledger

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Outcome(StrEnum):
    """How one row left the run."""

    INFERRED = "inferred"
    WRITTEN = "written"
    STALE = "stale"
    FAILED = "failed"
    HELD_BACK = "held back"
    LEASE_LOST = "lease lost"


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a run's rows in one step. Holds no patient data.

    Attributes:
        step: "infer" or "write_back".
        run_id: of the Airflow run.
        outcomes: how many rows ended how.
        errors: how many failed by which class.
    """

    step: str
    run_id: str
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    errors: Mapping[ErrorClass, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Rows that were taken."""
        return sum(self.outcomes.values())

    @property
    def failed_all(self) -> bool:
        """Whether rows failed and none came through: the step itself is in trouble, not single events."""
        return Outcome.FAILED in self.outcomes and set(self.outcomes) <= {Outcome.FAILED, Outcome.HELD_BACK}

    @property
    def line(self) -> str:
        """One line for a log."""
        ended = ", ".join(f"{count} {outcome}" for outcome, count in self.outcomes.items()) or "nothing to do"
        failed = ", ".join(f"{error} {count}" for error, count in self.errors.items())
        return f"{self.step} {self.run_id}: {ended}{f' ({failed})' if failed else ''}"


class Batch:
    """The rows that one `claim` gave, and their leases.

    Args:
        ledger: where they are from.
        items: the rows.
        lease: seconds of a lease; renewed at every third of it while the batch is worked on.
    """

    def __init__(self, ledger: Ledger, items: Sequence[WorkItem], *, lease: float) -> None:
        self._ledger = ledger
        self._items = items
        self._lease = lease
        self._open = {item.id: item for item in items}
        self._outcomes: Counter[Outcome] = Counter()
        self._errors: Counter[ErrorClass] = Counter()

    async def confirm(self, item: WorkItem) -> None:
        """Make sure, right before something is written elsewhere, that the row is still ours.

        Raises:
            LeaseLost: another worker has it.
        """
        if item.id not in await called(self._ledger.renew, [item], self._lease):
            raise LeaseLost(f"work {item.id} is no longer leased to this worker; nothing was written")

    async def work(
        self, step: Callable[[WorkItem], Awaitable[Outcome]], *, concurrency: int
    ) -> tuple[Mapping[Outcome, int], Mapping[ErrorClass, int]]:
        """Take every row through `step`; returns the counts of outcomes and of error classes.

        Args:
            step: works on one row; raises `StepFailed` or `LeaseLost`.
            concurrency: patients worked on at the same time.

        Raises:
            LedgerError: the ledger does not answer; rows that are not finished stay leased and are taken again.
        """
        patients: dict[str, list[WorkItem]] = {}
        for item in self._items:
            patients.setdefault(item.event.patient_key, []).append(item)
        slots = asyncio.Semaphore(concurrency)

        async def one_patient(items: Sequence[WorkItem]) -> None:
            async with slots:
                await self._in_order(items, step)

        renewing = asyncio.create_task(self._keep_leases())
        try:
            async with asyncio.TaskGroup() as group:
                for items in patients.values():
                    group.create_task(one_patient(items))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            renewing.cancel()
        return dict(self._outcomes), dict(self._errors)

    async def _in_order(self, items: Sequence[WorkItem], step: Callable[[WorkItem], Awaitable[Outcome]]) -> None:
        """One patient's rows; none overtakes one that has to wait."""
        blocked = False
        for item in items:
            try:
                if blocked or await called(self._ledger.is_off, "scenario", item.scenario):
                    await called(self._ledger.give_back, item)
                    outcome = Outcome.HELD_BACK
                else:
                    outcome = await self._one(item, step)
            except LeaseLost:
                outcome = Outcome.LEASE_LOST
            blocked = blocked or outcome not in (Outcome.INFERRED, Outcome.WRITTEN, Outcome.STALE)
            self._open.pop(item.id, None)
            self._outcomes[outcome] += 1

    async def _one(self, item: WorkItem, step: Callable[[WorkItem], Awaitable[Outcome]]) -> Outcome:
        if item.id not in self._open:
            raise LeaseLost(f"work {item.id} is no longer leased to this worker")
        if await called(self._ledger.superseded, [item]):
            await called(self._ledger.stale, item)
            return Outcome.STALE
        try:
            return await step(item)
        except StepFailed as failure:
            reason = failure
        except (LeaseLost, LedgerError):
            raise
        except Exception as error:  # noqa: BLE001 a fault of ours must not take other patients' rows down
            reason = StepFailed(ErrorClass.INTERNAL, f"{type(error).__name__} at {place(error)}")
        state = await called(self._ledger.failed, item, reason)
        self._errors[reason.error_class] += 1
        _log.warning("work %d: %s: %s; it is %s", item.id, reason.error_class, reason, state)
        return Outcome.FAILED

    async def _keep_leases(self) -> None:
        while self._open:
            await asyncio.sleep(self._lease / 3)
            with suppress(LedgerError):  # a row's own next call meets the same trouble, and says so
                asked = list(self._open.values())
                held = await called(self._ledger.renew, asked, self._lease)
                for item in asked:
                    if item.id not in held:
                        self._open.pop(item.id, None)


async def called(function: Callable[..., _T], *arguments: Any) -> _T:
    """A blocking ledger call, off the event loop.

    Raises:
        LedgerError: the ledger does not answer. A driver's own message may quote values, so it is left behind.
    """
    try:
        return await asyncio.to_thread(function, *arguments)
    except SQLAlchemyError as error:
        cause = type(getattr(error, "orig", None) or error).__name__
        raise LedgerError(f"the ledger did not do {getattr(function, '__name__', 'a call')} ({cause})") from None


def place(error: BaseException) -> str:
    """ "file:line" where an exception was raised; its message may hold patient data and stays out."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
