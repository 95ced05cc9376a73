"""Between an event loop and one thread: what piles up while the other side is busy goes over in one wake-up.

A wake-up is a system call and a switch of threads. At a thousand requests a second, one for each record on its way out
and one for each acknowledgement is a good part of what a request costs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

Call = Callable[[], None]


class ToThread:
    """Calls for a thread, made in their order.

    Args:
        executor: of one thread.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._calls: deque[Call] = deque()
        self._awake = False

    def __call__(self, call: Call) -> None:
        """Have `call` made by the thread; it raises nothing."""
        self._calls.append(call)
        if not self._awake:
            self._awake = True
            self._executor.submit(self._make)

    def _make(self) -> None:
        # asleep before the last look: what is added from here on wakes the thread again
        self._awake = False
        while self._calls:
            self._calls.popleft()()


class ToLoop:
    """Answers for futures of an event loop, from any thread.

    Args:
        loop: whose futures they are.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._answers: deque[tuple[asyncio.Future[Any], BaseException | None, Any]] = deque()
        self._awake = False

    def answer(self, future: asyncio.Future[Any], error: BaseException | None, value: Any = None) -> None:
        """Settle a future; one that nobody waits for any longer is left as it is."""
        self._answers.append((future, error, value))
        if not self._awake:
            self._awake = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(self._settle)

    def _settle(self) -> None:
        self._awake = False
        while self._answers:
            future, error, value = self._answers.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
