"""A steady stream of events behind a fault: as many as the house keeps up with, and no more."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterable, Iterator

from account import FINAL
from cases import NOTE, TRIAGE, Case
from house import House
from sqlalchemy.exc import SQLAlchemyError


class Flow:
    """Sends events from now until `stop`.

    Args:
        house: where they go.
        at_once: events under way at the same time, at most.
        copies: how often each is sent.
        cases: what is sent; other patients' events without end where None.
        seed: of the choice of scenarios.

    Attributes:
        cases: what was sent.
    """

    def __init__(
        self, house: House, *, at_once: int, copies: int = 1, cases: Iterable[Case] | None = None, seed: int = 1
    ) -> None:
        self._house = house
        self._at_once = at_once
        self._copies = copies
        self._coming = iter(cases) if cases is not None else self._endless(seed)
        self._going: set[str] = set()
        self.cases: list[Case] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._send, name="flow", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send no more; returns when everything that was sent is acknowledged."""
        self._over.set()
        self._thread.join(300)
        assert not self._thread.is_alive(), "the gateway never took what was sent to it"

    def _endless(self, seed: int) -> Iterator[Case]:
        chance = random.Random(seed)
        while True:
            yield self._house.cases.one(TRIAGE if chance.random() < 0.6 else NOTE)

    def _send(self) -> None:
        while not self._over.is_set():
            batch = list(itertools.islice(self._coming, max(0, min(self._room(), 8))))
            if batch:
                self.cases += batch
                self._going |= {case.event_id for case in batch}
                self._house.sender.send(batch, side_by_side=4, copies=self._copies)
            else:
                time.sleep(0.03)

    def _room(self) -> int:
        """How many more may be under way; none while the ledger cannot say."""
        try:
            states = self._house.states(list(self._going))
        except SQLAlchemyError:
            return 0
        self._going -= {event_id for event_id, rows in states.items() if all(state in FINAL for _, state, _ in rows)}
        return self._at_once - len(self._going)
