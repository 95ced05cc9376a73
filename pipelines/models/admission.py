"""How much may be asked of a model server at once: as its own queue allows, and the most urgent first.

Within a process a `Gate` lets so many requests through, in the order of their priority. Its limit follows what the
server says of its queue at /metrics: one more a look while nobody waits there, half where a queue stands (additive
increase, multiplicative decrease: Chiu and Jain, Computer Networks and ISDN Systems 17, 1989). Between processes vLLM's
own priority scheduling and the weights in Airflow's pool decide. What there is no room for waits in the ledger: `Room`
tells the dispatcher whether runs of a scenario may be made now.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import httpx

from fhir_adapters.http_transport import trusted
from pipelines.models.settings import Model, Registry
from plugins.scenario import Stage

#: Seconds between two looks at a server's queue.
LOOK_EVERY = 1.0
#: Seconds that one look may take; a server that does not say is as if it had no queue.
PATIENCE = 0.5
#: Part of the KV cache in use from which vLLM begins to preempt what runs.
FULL = 0.95
#: A stage's runs wait while more requests queue at the server than this part of `max_in_flight`; in-visit never waits.
TOLERATED = {Stage.PRE_VISIT: 1.0, Stage.POST_VISIT: 0.25}

_LINE = re.compile(r"^vllm:(num_requests_running|num_requests_waiting|kv_cache_usage_perc)(?:\{[^}]*\})? (\S+)", re.M)


@dataclass(frozen=True, slots=True)
class Depth:
    """A server's own queue.

    Attributes:
        running: requests that it works on.
        waiting: requests that wait for it.
        kv_cache: part of its KV cache in use, 0 to 1; of several engines the fullest.
    """

    running: float
    waiting: float
    kv_cache: float

    @property
    def crowded(self) -> bool:
        """Whether a queue stands. What has just come is `waiting` too, for one step of the engine: a quarter of what
        runs may."""
        return self.waiting > max(1.0, self.running / 4) or self.kv_cache >= FULL


def depth(page: str) -> Depth | None:
    """The queue in a vLLM's /metrics page, over all its engines; None where the page does not say."""
    found: dict[str, list[float]] = {}
    for name, value in _LINE.findall(page):
        with suppress(ValueError):
            found.setdefault(name, []).append(float(value))
    if "num_requests_running" not in found or "num_requests_waiting" not in found:
        return None
    cache = max(found.get("kv_cache_usage_perc", [0.0]))
    return Depth(sum(found["num_requests_running"]), sum(found["num_requests_waiting"]), cache)


def metrics_url(model: Model) -> str:
    """Where a model's server says how deep its queue is; `options.metrics` where that is elsewhere."""
    return str(model.options.get("metrics") or f"{model.url.rstrip('/').removesuffix('/v1')}/metrics")


def next_limit(limit: int, most: int, seen: Depth) -> int:
    """The limit after one look: half, at least 1, where the server is crowded; else one more, at most `most`."""
    return max(1, limit // 2) if seen.crowded else min(most, limit + 1)


class Gate:
    """Lets at most `limit` through at a time; who waits goes in the order of priority, then of coming.

    Args:
        limit: at first; it may be changed at any time, and who is inside stays.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside = 0
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    @property
    def limit(self) -> int:
        """How many may be inside."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._let_in()

    @asynccontextmanager
    async def inside(self, priority: int) -> AsyncIterator[None]:
        """Wait for a place; a lower priority goes first."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._order), turn))
        self._let_in()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._inside -= 1
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self._inside < self._limit:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self._inside += 1
                turn.set_result(None)


class Follower:
    """Keeps a gate's limit at what the server bears.

    Args:
        gate: whose limit it sets.
        most: the configured bound.
        look: reads the server's queue; None where it does not say: then the limit stays. Where the server has never
            said anything, what a refusal has taken from the limit comes back by one a look.
        every: seconds between looks.
    """

    def __init__(
        self, gate: Gate, most: int, look: Callable[[], Awaitable[Depth | None]], every: float = LOOK_EVERY
    ) -> None:
        self._gate = gate
        self._most = most
        self._look = look
        self._every = every
        self._task: asyncio.Task[None] | None = None
        self._first = asyncio.Lock()
        self._says = False

    async def started(self) -> None:
        """Look once before the first request, then go on looking; a newcomer takes half of what it might."""
        async with self._first:
            if self._task is None:
                seen = await self._look()
                if seen is not None:
                    self._says = True
                    self._gate.limit = 1 if seen.crowded else max(1, self._most // 2)
                self._task = asyncio.create_task(self._follow())

    def overloaded(self) -> None:
        """The server refused a request for want of room (429, 503)."""
        self._gate.limit = max(1, self._gate.limit // 2)

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            seen = await self._look()
            if seen is not None:
                self._says = True
                self._gate.limit = next_limit(self._gate.limit, self._most, seen)
            elif not self._says:
                self._gate.limit = min(self._most, self._gate.limit + 1)


class Room:
    """Whether a model server has room for more runs of a scenario; asked by the dispatcher, one thread.

    Args:
        registry: the models and their routes.
        deadlines: scenario -> seconds from event to draft.
        look: reads a model's queue; for tests.
        keep: seconds that a look serves.
    """

    def __init__(
        self,
        registry: Registry,
        deadlines: Mapping[str, float],
        look: Callable[[Model], Depth | None] | None = None,
        *,
        keep: float = LOOK_EVERY,
    ) -> None:
        self._registry = registry
        self._deadlines = dict(deadlines)
        self._look = look or look_at
        self._keep = keep
        self._seen: dict[str, tuple[float, Depth | None]] = {}

    def lacks(self, scenario: str, oldest: float) -> str:
        """Why no run may be made now, "" where one may.

        In-visit work always goes. Other work that has waited half of its deadline goes as well: it yields to what is
        more urgent, and starves for nobody.

        Args:
            scenario: its id.
            oldest: seconds that the oldest ready row has waited.
        """
        stage = scenario.partition(".")[0]
        share = TOLERATED.get(Stage(stage)) if stage in set(Stage) else None
        if share is None or oldest > self._deadlines.get(scenario, 0.0) / 2:
            return ""
        for model in self._registry.route(scenario):
            seen = self._depth(model)
            if seen is not None and (seen.waiting > share * model.max_in_flight or seen.kv_cache >= FULL):
                return f"{seen.waiting:g} requests wait at model {model.name}"
        return ""

    def _depth(self, model: Model) -> Depth | None:
        now = time.monotonic()
        at, seen = self._seen.get(model.name, (float("-inf"), None))
        if now - at >= self._keep:
            seen = self._look(model)
            self._seen[model.name] = (now, seen)
        return seen


def look_at(model: Model) -> Depth | None:
    """One look at a server's queue, from a thread; None where it does not say."""
    if model.kind != "openai":
        return None
    try:
        url = metrics_url(model)
        # what httpx would read at every look: 20 ms of CPU, also where there is no TLS
        verify = trusted() if url.startswith("https:") else False
        answer = httpx.get(url, timeout=PATIENCE, trust_env=False, verify=verify)
    except (httpx.HTTPError, httpx.InvalidURL):
        return None
    return depth(answer.text) if answer.status_code == 200 else None


async def look_from_here(model: Model) -> Depth | None:
    """The same from an event loop."""
    return await asyncio.to_thread(look_at, model)
