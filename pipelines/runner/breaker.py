"""The breakers as one run sees them: what is down is not asked, what answers is noted; the ledger has their state.

A run reads the states once a second at most and notes successes once a second at most, so that a healthy way costs no
query a row. Failures are noted by `Ledger.failed`, with the row that failed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

from pipelines.errors import StepFailed, Waits
from pipelines.failures.dependencies import KAFKA, model_of, reading_of, writing_of
from pipelines.failures.policy import POLICIES, Feeds
from pipelines.ledger.breaking import Breaker, BreakerState
from pipelines.ledger.calls import called
from pipelines.ledger.rows import WorkItem
from pipelines.ledger.store import Ledger

#: Seconds that what was read from the ledger serves, and that a success may stay unnoted.
KEEP = 1.0
_LOOK_AGAIN = 0.2

_T = TypeVar("_T")


@dataclass(slots=True)
class Task:
    """What the running task is about.

    Attributes:
        item: the piece of work.
        rules_only: whether only its rules may run.
        asked: the models that have answered it, as dependencies, the last one last.
    """

    item: WorkItem
    rules_only: bool = False
    asked: list[str] = field(default_factory=list)


current: ContextVar[Task] = ContextVar("current")


def dependency_of(failure: StepFailed, task: Task) -> str | None:
    """Whose breaker a failure feeds; None where it is nobody's: of a model, when none was asked.

    Args:
        failure: what happened.
        task: what it happened in; where the failure names no model, it is about what the last one said.
    """
    if failure.dependency is not None:
        return failure.dependency
    match POLICIES[failure.error_class].feeds:
        case Feeds.MODEL:
            return task.asked[-1] if task.asked else None
        case Feeds.FHIR:
            source = task.item.event.source
            return writing_of(source) if failure.writing else reading_of(source)
        case Feeds.KAFKA:
            return KAFKA
        case _:
            return None


class Breakers:
    """Lets a run's pieces of work through to what they need, or tells them to wait. One event loop's own.

    Args:
        ledger: has the breakers.
        run_id: of the run; it is in the name of the one that tries what was down.
        keep: seconds that what was read serves.
    """

    def __init__(self, ledger: Ledger, run_id: str, *, keep: float = KEEP) -> None:
        self._ledger = ledger
        self._run_id = run_id
        self._keep = keep
        self._known: Mapping[str, Breaker] = {}
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        self._served: set[str] = set()
        self._noted: dict[str, float] = {}
        self._trying: dict[str, int] = {}
        self._taking = asyncio.Lock()

    def served(self, dependency: str) -> None:
        """It has just done what it was asked for; `tell` notes it."""
        self._served.add(dependency)

    def failed(self, dependency: str) -> None:
        """It has not: the ledger knows, so that what is known here is old."""
        self._noted.pop(dependency, None)
        self._read_at = float("-inf")

    async def tell(self) -> None:
        """Note what has answered since the last time; at once where that changes anything, else once a second.

        Raises:
            LedgerError: the ledger does not answer.
        """
        now = time.monotonic()
        due = {
            dependency
            for dependency in self._served
            if now - self._noted.get(dependency, float("-inf")) >= self._keep or not self._clean(dependency)
        }
        if due:
            self._served -= due
            self._noted |= dict.fromkeys(due, now)
            await called(self._ledger.served, due)
            if not all(self._clean(dependency) for dependency in due):
                self._read_at = float("-inf")

    async def passes(self, dependency: str, item: WorkItem) -> None:
        """Return when a piece of work may ask this dependency; where another of its run is trying it, wait for that.

        Raises:
            Waits: it is down.
            LedgerError: the ledger does not answer.
        """
        while True:
            breaker = (await self._look()).get(dependency)
            if breaker is None or breaker.state is BreakerState.CLOSED:
                return
            async with self._taking:
                if await self._may_try(dependency, item):
                    return
            await asyncio.sleep(_LOOK_AGAIN)
            self._read_at = float("-inf")

    async def ask(self, model: str, question: Callable[[], Awaitable[_T]]) -> _T:
        """Ask a model for the piece of work of the running task (`current`).

        Who asks a model has read the event and the record and has run the rules: that Kafka and the source's server
        serve is noted here. That the model does is noted when its answer has passed the guards (`answered`): a server
        that says garbage is as good as down.

        Args:
            model: its name.
            question: asks it; called once, or not at all.

        Raises:
            Waits: the model is down, or an earlier piece of work of the patient goes first; rules have run by now.
            StepFailed: the question's own; a failure of the model names it as the dependency.
        """
        task = current.get()
        if task.rules_only:
            raise Waits("its rules have run; an earlier piece of work of the patient goes first", rules_ran=True)
        dependency = model_of(model)
        try:
            await self.passes(dependency, task.item)
            answer = await question()
        except Waits as waits:
            raise Waits(str(waits), dependency=waits.dependency, rules_ran=True) from None
        except StepFailed as failure:
            if POLICIES[failure.error_class].feeds is Feeds.MODEL:
                failure.dependency = dependency
            raise
        task.asked.append(dependency)
        return answer

    def answered(self, task: Task) -> None:
        """What the models said for this piece of work has passed the guards."""
        self._served.update(task.asked)

    async def _may_try(self, dependency: str, item: WorkItem) -> bool:
        """Whether this one tries what was down; not when another of its run does.

        Raises:
            Waits: another run does, or it is not time yet.
        """
        if dependency not in self._trying:
            if not await called(self._ledger.take_probe, dependency, self._run_id):
                self._read_at = float("-inf")
                breaker = (await self._look()).get(dependency)
                if breaker is None or breaker.state is BreakerState.CLOSED:
                    return True
                if breaker.probe != self._run_id:
                    why = f"{dependency} is down ({breaker.error_class}); the row waits"
                    raise Waits(why, dependency=dependency)
            self._trying[dependency] = item.id
            self._read_at = float("-inf")
        return self._trying[dependency] == item.id

    def left(self, item: WorkItem) -> None:
        """A piece of work has ended: what it was trying may be tried by another of the run."""
        self._trying = {dependency: id_ for dependency, id_ in self._trying.items() if id_ != item.id}

    def _clean(self, dependency: str) -> bool:
        known = self._known.get(dependency)
        return known is None or known.clean

    async def _look(self) -> Mapping[str, Breaker]:
        async with self._reading:
            if time.monotonic() - self._read_at >= self._keep:
                self._known = {breaker.dependency: breaker for breaker in await called(self._ledger.breakers)}
                self._read_at = time.monotonic()
            return self._known
