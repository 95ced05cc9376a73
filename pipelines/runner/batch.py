"""Working through a run's leased rows: patients side by side, each one's rows in order, every end accounted for."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from pipelines.errors import ErrorClass, LeaseLost, LedgerError, StepFailed, Waits
from pipelines.failures.dependencies import KAFKA, reading_of, writing_of
from pipelines.failures.policy import Trouble, pace_of
from pipelines.ledger.calls import Turns, called
from pipelines.ledger.rows import WorkItem
from pipelines.ledger.states import State
from pipelines.ledger.store import Ledger
from pipelines.places import place
from pipelines.runner.at_work import carrying, works_on
from pipelines.runner.breaker import Breakers, Task, current, dependency_of
from pipelines.runner.leave import Leave, Overtaken
from pipelines.runner.outcomes import Outcome, Summary

__all__ = ["Batch", "Outcome", "Summary", "called", "place"]

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: Seconds that a look at the switches serves.
_SWITCHES_KEEP = 1.0
#: Seconds that a look at newer versions serves.
_VERSIONS_KEEP = 1.0


#: How a row ends that holds up none of its patient's later ones.
_OUT_OF_THE_WAY = frozenset({Outcome.WRITTEN, Outcome.STALE})

#: From the event to drafts in the outbox; gives the row as it is then.
Infer = Callable[[WorkItem], Awaitable[WorkItem]]
#: From the outbox to the FHIR server.
Write = Callable[[WorkItem], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Way:
    """What is done to each row, and how many are in each part of it at the same time."""

    infer: Infer
    write: Write
    asking: asyncio.Semaphore
    writing: asyncio.Semaphore
    group: asyncio.TaskGroup


class Batch:
    """The rows that a run has claimed, and their leases; one that stays adds to them.

    Args:
        ledger: where they are from.
        items: the rows that it begins with.
        lease: seconds of a lease; renewed at every third of it while the batch is worked on.
        breakers: the run's, of what the rows need.
    """

    def __init__(self, ledger: Ledger, items: Sequence[WorkItem], *, lease: float, breakers: Breakers) -> None:
        self._ledger = ledger
        self._items = tuple(items)
        self._lease = lease
        self._breakers = breakers
        self._open: dict[int, WorkItem] = {}  # whose leases are still held
        self._unfinished: dict[int, WorkItem] = {}
        self._outcomes: Counter[Outcome] = Counter()
        self._errors: Counter[ErrorClass] = Counter()
        self._switched_off: frozenset[tuple[str, str]] = frozenset()
        self._switches_read_at = float("-inf")
        self._switches = asyncio.Lock()
        self._overtaken: frozenset[int] = frozenset()
        self._looked_at: dict[int, float] = {}
        self._versions = asyncio.Lock()
        self._way: _Way | None = None
        self.turns = Turns()  # of the rows at the ledger, with the verbs that each of them needs
        self.changed = asyncio.Event()  # a row has left; for whoever waits for that, and clears it

    def leave(self, item: WorkItem) -> Leave:
        """What the row asks right before it writes elsewhere."""
        return Leave(self._ledger, item, self._lease, self.turns)

    async def ask(self, model: str, question: Callable[[], Awaitable[_T]]) -> _T:
        """See `Breakers.ask`: every question to a model goes through here."""
        return await self._breakers.ask(model, question)

    def served(self, dependency: str) -> None:
        """It was asked for one of the rows, and has done it; who was not asked has not shown that it serves."""
        self._breakers.served(dependency)

    async def is_off(self, kind: str, name: str) -> bool:
        """As `Ledger.is_off`, at most a second old.

        Raises:
            LedgerError: the ledger does not answer.
        """
        async with self._switches:
            if time.monotonic() - self._switches_read_at >= _SWITCHES_KEEP:
                rows = await called(self._ledger.switched_off)
                self._switched_off = frozenset((row.kind, row.name) for row in rows)
                self._switches_read_at = time.monotonic()
        return bool({("everything", ""), (kind, name)} & self._switched_off)

    @property
    def unfinished(self) -> int:
        """Rows that are still to be done."""
        return len(self._unfinished)

    @property
    def on_trial(self) -> bool:
        """Whether one of them has failed before: it may be what takes a worker down, and gets no further company."""
        return any(item.tries for item in self._unfinished.values())

    @property
    def all_failed(self) -> bool:
        """See `Summary.failed_all`, so far."""
        return Summary("", self._outcomes).failed_all

    def add(self, items: Sequence[WorkItem]) -> None:
        """Take up further rows while `work` goes on; their patients are none of those that have rows here."""
        way = self._going
        patients: dict[str, list[WorkItem]] = {}
        for item in items:
            patients.setdefault(item.event.patient_key, []).append(item)
            self._open[item.id] = item
            self._unfinished[item.id] = item
        # who has failed comes last: should something be down, it must not be the one that tries for all
        for of_one in sorted(patients.values(), key=lambda items: items[0].tries > 0):
            way.group.create_task(self._in_order(of_one))

    @property
    def _going(self) -> _Way:
        if self._way is None:
            raise RuntimeError("rows are taken up while `work` goes on")
        return self._way

    async def work(
        self,
        infer: Infer,
        write: Write,
        *,
        asking: int,
        writing: int,
        stay: Callable[[], Awaitable[None]] | None = None,
    ) -> tuple[Mapping[Outcome, int], Mapping[ErrorClass, int]]:
        """Take every row all the way; returns the counts of outcomes and of error classes.

        A row is written as soon as its drafts lie in the outbox, while others still wait for the model.

        Args:
            infer, write: work on one row; each raises `StepFailed`, `Waits`, `LeaseLost` or `Overtaken`.
            asking: patients inferred for at the same time.
            writing: patients written for at the same time.
            stay: adds further rows, and returns when there will be no more.

        Raises:
            LedgerError: the ledger does not answer; rows that are not finished stay leased and are taken again.
        """
        renewing = asyncio.create_task(self._keep_leases())
        try:
            async with asyncio.TaskGroup() as group:
                self._way = _Way(infer, write, asyncio.Semaphore(asking), asyncio.Semaphore(writing), group)
                self.add(self._items)
                if stay is not None:
                    await stay()
            await self._breakers.tell()
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            renewing.cancel()
        return dict(self._outcomes), dict(self._errors)

    async def give_back(self, patience: float) -> None:
        """What is not finished waits for another run, as soon as the ledger answers; none of it counts an attempt.

        Args:
            patience: seconds that are given to a ledger that does not.

        Raises:
            LedgerError: it did not answer in time.
        """
        pace, end = pace_of(Trouble.LEDGER_UNAVAILABLE), time.monotonic() + patience
        for tried in itertools.count():
            try:
                await called(self._ledger.give_back_all, list(self._open.values()))
            except LedgerError:
                if time.monotonic() > end:
                    raise
            else:
                self._open.clear()
                return
            await asyncio.sleep(pace.wait(tried))

    async def _in_order(self, items: Sequence[WorkItem]) -> None:
        """One patient's rows; none overtakes one that has to wait, but the rules of each run."""
        blocked = False
        for item in items:
            rules_only = blocked or item.rules_only
            nothing_to_do = rules_only and (item.rules_ran or item.state is State.INFERRED)
            try:
                works_on(item)
                with carrying(item) as span:
                    outcome = await (self._held_back(item) if nothing_to_do else self._one(item, rules_only))
                    span.set(careloom__outcome=outcome.value)
            except LeaseLost:
                outcome = Outcome.LEASE_LOST
            blocked = blocked or outcome not in _OUT_OF_THE_WAY
            self._open.pop(item.id, None)
            self._unfinished.pop(item.id, None)
            self._breakers.left(item)
            self._outcomes[outcome] += 1
            self.changed.set()

    async def _held_back(self, item: WorkItem) -> Outcome:
        await called(self._ledger.give_back, item)
        return Outcome.HELD_BACK

    async def _one(self, item: WorkItem, rules_only: bool) -> Outcome:
        way = self._going

        async def infer(item: WorkItem) -> WorkItem:
            await self._may_begin(item)
            inferred = await way.infer(item)
            self._breakers.answered(current.get())
            return inferred

        async def write(item: WorkItem) -> Outcome:
            if (item.drafts or {}).get("drafts"):  # else nothing is written, and no server needed
                await self._breakers.passes(writing_of(item.event.source), item)
            await way.write(item)
            return Outcome.WRITTEN

        if item.state is not State.INFERRED:
            current.set(Task(item, rules_only))
            async with way.asking:
                inferred = await self._settled(item, infer)
            if isinstance(inferred, Outcome):
                return inferred
            item = inferred
        current.set(Task(item))
        async with way.writing:
            return await self._settled(item, write)

    async def _settled(self, item: WorkItem, part: Callable[[WorkItem], Awaitable[_T]]) -> _T | Outcome:
        """Do a part of the way; how the row left the run, where it did.

        Raises:
            LeaseLost: the row is another worker's.
            LedgerError: the ledger does not answer.
        """
        if item.id not in self._open:
            raise LeaseLost(f"work {item.id} is no longer leased to this worker")
        try:
            if await self.is_off("scenario", item.scenario):
                return await self._held_back(item)
            done = await part(item)
        except Overtaken:
            await called(self._ledger.stale, item)
            return Outcome.STALE
        except Waits as reason:
            await called(self._ledger.wait, item, reason)
            return Outcome.WAITS if reason.dependency else Outcome.HELD_BACK
        except StepFailed as failure:
            trouble = failure
        except (LeaseLost, LedgerError):
            raise
        except Exception as error:  # noqa: BLE001 a fault of ours must not take other patients' rows down
            trouble = StepFailed(ErrorClass.INTERNAL, f"{type(error).__name__} at {place(error)}")
        else:
            await self._breakers.tell()
            return done
        return await self._failed(item, trouble)

    async def _is_overtaken(self, item: WorkItem) -> bool:
        """Whether a newer version of its resource has come, as of a second ago at most; `confirm` asks for certain."""
        async with self._versions:
            now = time.monotonic()
            if item.id not in self._looked_at or now - self._looked_at[item.id] >= _VERSIONS_KEEP:
                asked = list(self._unfinished.values())
                self._overtaken = frozenset(await called(self._ledger.superseded, asked))
                self._looked_at = {one.id: now for one in asked}
        return item.id in self._overtaken

    async def _may_begin(self, item: WorkItem) -> None:
        """Whether work on a row makes sense now.

        Raises:
            Overtaken: a newer version came.
            Waits: what it needs from its first moment on is down.
        """
        source = item.event.source
        if await self._is_overtaken(item):
            raise Overtaken(f"work {item.id} is of a version that was overtaken")
        await self._breakers.passes(KAFKA, item)
        await self._breakers.passes(reading_of(source), item)

    async def _failed(self, item: WorkItem, reason: StepFailed) -> Outcome:
        await self._breakers.tell()
        dependency = dependency_of(reason, current.get())
        state = await called(self._ledger.failed, item, reason, dependency=dependency)
        if dependency is not None:
            self._breakers.failed(dependency)
        self._errors[reason.error_class] += 1
        _log.warning("work %d: %s: %s; it is %s", item.id, reason.error_class, reason, state)
        return Outcome.FAILED

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            with suppress(LedgerError):  # a row's own next call meets the same trouble, and says so
                asked = list(self._open.values())
                held = await called(self._ledger.renew, asked, self._lease)
                for item in asked:
                    if item.id not in held:
                        self._open.pop(item.id, None)
