"""A run that stays: it takes further rows of its scenario itself, warm and at once, until nobody needs it any more.

It begins as soon as the run's own rows leave it room, hears of new rows by PostgreSQL's NOTIFY, and looks by itself
once a second: what became ready without a word (a backoff that ended, a switch) is found then. The ledger decides what
may be taken and whether the run may stay (`pipelines.ledger.staying`); the bounds of rows and time are this file's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psycopg

from pipelines.config import Config
from pipelines.errors import LedgerError
from pipelines.fail_points import fail_point
from pipelines.ledger.calls import called
from pipelines.ledger.listening import heard
from pipelines.ledger.rows import WorkItem
from pipelines.ledger.staying import Stayer
from pipelines.ledger.store import Ledger
from pipelines.runner.batch import Batch
from plugins.scenario import Stage

log = logging.getLogger(__name__)

#: Who goes first where not all may stay; a run that stands goes before all of them, by the same order.
RANK = {Stage.IN_VISIT: 3, Stage.PRE_VISIT: 2, Stage.POST_VISIT: 1}
#: Seconds between looks without a word, and between two times that the process says it is there.
_LOOK = 1.0
#: Seconds that a stay lasts without being said again; after them nobody waits for a process that has died.
_LASTS = 5.0


class Stay:
    """Of one run, in its task's process; call it inside `Batch.work`.

    Args:
        config: how long, how much, how many; where the ledger is.
        ledger: has the rows.
        batch: takes them up.
        run_id, scenario, stage: the run's.
        asking: rows under way below which further ones are taken.
        stands: whether it began without rows, and stays however long none come.
        taken: called with the rows before they are taken up.
        rested: called whenever no row is under way: nothing of a patient is to be kept.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        batch: Batch,
        run_id: str,
        scenario: str,
        stage: Stage,
        *,
        asking: int,
        stands: bool = False,
        taken: Callable[[Sequence[WorkItem]], None],
        rested: Callable[[], None],
    ) -> None:
        self._settings = config.runner
        self._url = config.ledger.url.get_secret_value()
        self._size = config.dispatcher.batch_size
        self._ledger = ledger
        self._batch = batch
        self._scenario = scenario
        self._asking = asking
        self._taken = taken
        self._rested = rested
        self._patience = float("inf") if stands else config.runner.stay
        rank = RANK[stage] + (len(RANK) if stands else 0)
        self._stayer = Stayer.new(
            run_id, rank=rank, most=config.runner.stay_runs, slots=config.runner.slots, seconds=_LASTS
        )
        self._over = False
        self._rows = 0
        self._said_at: float | None = None
        self._idle_since: float | None = None

    def end(self) -> None:
        """Take nothing any more; in the loop's own thread."""
        self._over = True
        self._batch.changed.set()

    async def __call__(self) -> None:
        """Take rows until it is over; a ledger that does not answer ends it."""
        listening = asyncio.create_task(self._listen())
        try:
            await self._stay(time.monotonic() + self._settings.stay_life)
        except LedgerError as error:  # the rows' own calls meet the same trouble; no stay is worth a run
            log.warning("the run stays no longer: %s", error)
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
            if self._said_at is not None:
                with suppress(LedgerError):  # it ends by itself
                    await called(self._ledger.leave, self._stayer)

    async def _stay(self, until: float) -> None:
        while not self._over and time.monotonic() < until and self._rows < self._settings.stay_rows:
            self._batch.changed.clear()
            if not await self._may_stay() or (self._has_room and not await self._take()):
                return
            if not self._batch.unfinished and self._idles_too_long():
                return
            await self._wait()

    @property
    def _has_room(self) -> bool:
        return self._batch.unfinished < self._asking and not self._batch.on_trial

    async def _may_stay(self) -> bool:
        """Say every so often that the process is there. It begins when the run's own rows leave room."""
        now = time.monotonic()
        if self._said_at is None and not self._has_room:
            return True
        if self._said_at is not None and now - self._said_at < _LOOK:
            return True
        begins, self._said_at = self._said_at is None, now
        return await called(self._ledger.stay, self._stayer, begins=begins)

    async def _take(self) -> bool:
        """Take what is ready; False where the stay is over."""
        if not self._batch.unfinished:
            self._rested()
        fail_point("runner.taking")
        size = min(self._size, self._settings.stay_rows - self._rows)
        items = await called(self._ledger.take_more, self._stayer, size, self._settings.lease)
        if items:
            fail_point("runner.took")
            self._rows += len(items)
            self._idle_since = None
            self._taken(items)
            self._batch.add(items)
        return items is not None

    def _idles_too_long(self) -> bool:
        """Whether nothing came for as long as it stays; where everything has failed so far, nothing is waited for."""
        now = time.monotonic()
        self._idle_since = now if self._idle_since is None else self._idle_since
        return self._batch.all_failed or now - self._idle_since >= self._patience

    async def _wait(self) -> None:
        """Until a row has left, something is said to be ready, or it is time to look."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._batch.changed.wait(), min(_LOOK, self._patience))

    async def _listen(self) -> None:
        """Hear of rows that may be ready; without a connection it is only looked once a second."""
        while True:
            with suppress(psycopg.Error):
                async for _ in heard(self._url, self._scenario):
                    self._batch.changed.set()
            await asyncio.sleep(_LOOK)
