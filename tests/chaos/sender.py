"""The hospital's own system: sends every event until it is told 2xx, as often as asked to, and remembers when."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import aiohttp
from cases import SOURCE, Case

_TIMEOUT = aiohttp.ClientTimeout(total=40)
_PATIENCE = 240.0


@dataclass
class Told:
    """What became of one event at the gateway.

    Attributes:
        case: the event.
        acknowledged: times of each 2xx (monotonic).
        tries: requests sent.
    """

    case: Case
    acknowledged: list[float]
    tries: int = 0


class Sender:
    """Sends. Close it.

    Attributes:
        told: event id -> what became of it, of everything that was ever sent.
        acknowledgements: times of all 2xx, in order.
        statuses: how often each HTTP status was answered.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/fhir/{SOURCE}"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/fhir+json"}
        self.told: dict[str, Told] = {}
        self.acknowledgements: list[float] = []
        self.statuses: Counter[int] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sender", daemon=True)
        self._thread.start()
        self._session: aiohttp.ClientSession | None = None

    def send(self, cases: Sequence[Case], *, side_by_side: int = 8, copies: int = 1) -> None:
        """Send them all and wait until each copy was acknowledged."""
        self.start(cases, side_by_side=side_by_side, copies=copies).result(_PATIENCE + 60)

    def start(
        self, cases: Iterable[Case], *, side_by_side: int = 8, copies: int = 1, every: float = 0.0
    ) -> Future[None]:
        """Send them without waiting.

        Args:
            cases: taken one by one as they are sent; may be endless, until `stop` cancels the future.
            side_by_side: requests at the same time.
            copies: how often each is sent, at the same moment.
            every: seconds from one event to the next; 0 for as fast as the gateway takes them.
        """
        return asyncio.run_coroutine_threadsafe(self._all(iter(cases), side_by_side, copies, every), self._loop)

    def close(self) -> None:
        """Give back the connections."""
        if self._session is not None:
            asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    async def _all(self, cases: Iterable[Case], side_by_side: int, copies: int, every: float) -> None:
        if self._session is None:
            connections = aiohttp.TCPConnector(limit=0)  # `side_by_side` is the limit
            self._session = aiohttp.ClientSession(connector=connections, timeout=_TIMEOUT, headers=self._headers)
        slots = asyncio.Semaphore(side_by_side)
        due = time.monotonic()
        going: set[asyncio.Task[None]] = set()
        try:
            for case in cases:
                await slots.acquire()
                if every:
                    due += every
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                for copy in range(copies):
                    task = asyncio.create_task(self._one(case, slots if copy == 0 else None))
                    going.add(task)
                    task.add_done_callback(going.discard)
        finally:
            # what was begun is brought to its end: a sender does not forget what it was not told about
            while going:
                await asyncio.gather(*going, return_exceptions=True)

    async def _one(self, case: Case, slots: asyncio.Semaphore | None) -> None:
        told = self.told.setdefault(case.event_id, Told(case, []))
        end = time.monotonic() + _PATIENCE
        try:
            while time.monotonic() < end:
                told.tries += 1
                if await self._posted(case):
                    now = time.monotonic()
                    told.acknowledged.append(now)
                    self.acknowledgements.append(now)
                    return
                await asyncio.sleep(random.uniform(0.02, 0.15))
        finally:
            if slots is not None:
                slots.release()

    async def _posted(self, case: Case) -> bool:
        assert self._session is not None
        try:
            async with self._session.post(self._url, data=case.body) as answer:
                await answer.read()
                self.statuses[answer.status] += 1
                if 400 <= answer.status < 500 and answer.status != 429:
                    raise AssertionError(f"the gateway refused a good event: {answer.status}")
                return answer.status < 300
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
