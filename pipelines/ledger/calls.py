"""The ledger's blocking verbs, called from an event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from pipelines.errors import LedgerError

_T = TypeVar("_T")


async def called(function: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
    """A blocking ledger call, off the event loop.

    Raises:
        LedgerError: the ledger does not answer. A driver's own message may quote values, so it is left behind.
    """
    try:
        return await asyncio.to_thread(function, *arguments, **named)
    except SQLAlchemyError as error:
        raise _no_answer(function, error) from None


@dataclass(frozen=True, slots=True)
class _Call:
    """One that waits for its turn, in the context of who asked."""

    done: asyncio.Future[Any]
    work: Callable[[], Any]


class Turns:
    """Calls of many rows, one after the other in one thread: a change of threads serves all that came meanwhile.

    For verbs of one short statement that every row needs. A thread for each call made the threads of a busy task cost
    more than the calls (docs/decisions/013); one connection also keeps its prepared statements.
    """

    def __init__(self) -> None:
        self._waiting: list[_Call] = []
        self._working: asyncio.Task[None] | None = None

    async def called(self, function: Callable[..., _T], *arguments: Any, **named: Any) -> _T:
        """See `called`."""
        done: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        work = partial(contextvars.copy_context().run, function, *arguments, **named)
        self._waiting.append(_Call(done, work))
        if self._working is None:
            self._working = asyncio.create_task(self._work())
        try:
            return await done
        except SQLAlchemyError as error:
            raise _no_answer(function, error) from None

    async def _work(self) -> None:
        try:
            while self._waiting:
                calls, self._waiting = self._waiting, []
                for call, outcome in zip(calls, await asyncio.to_thread(_outcomes, calls), strict=True):
                    if call.done.done():
                        continue  # who asked was told to stop
                    if isinstance(outcome, Exception):
                        call.done.set_exception(outcome)
                    else:
                        call.done.set_result(outcome)
        finally:
            self._working = None


def _outcomes(calls: Sequence[_Call]) -> list[Any]:
    """What each returned, or the exception that it raised."""
    found: list[Any] = []
    for call in calls:
        try:
            found.append(call.work())
        except Exception as error:  # noqa: BLE001  it is raised where the call was made
            found.append(error)
    return found


def _no_answer(function: Callable[..., Any], error: SQLAlchemyError) -> LedgerError:
    cause = type(getattr(error, "orig", None) or error).__name__
    return LedgerError(f"the ledger did not do {getattr(function, '__name__', 'a call')} ({cause})")
