"""Waiting ever longer after each failure in a row, with full jitter, up to a cap."""

from __future__ import annotations

import threading
import time

from pipelines.failures.policy import Pace


class Backoff:
    """Of one thing that may fail.

    Args:
        first: seconds that the first wait lasts at most; doubles with each failure.
        cap: seconds that no wait exceeds.
    """

    def __init__(self, first: float, cap: float) -> None:
        self._pace = Pace(first, cap)
        self._failures = 0

    @classmethod
    def of(cls, pace: Pace) -> Backoff:
        """At a pace of the failure policy's."""
        return cls(pace.first, pace.cap)

    def failed(self, retry_after: float | None = None) -> float:
        """It failed once more; returns the seconds to wait."""
        wait = self._pace.wait(self._failures, retry_after)
        self._failures += 1
        return wait

    def succeeded(self) -> None:
        """It works again."""
        self._failures = 0


class Holds:
    """Scenarios whose runs fail as a whole are held for a while, each by itself; safe to share between threads.

    Args:
        first, cap: as for `Backoff`.
    """

    def __init__(self, first: float, cap: float) -> None:
        self._first = first
        self._cap = cap
        self._lock = threading.Lock()
        self._held: dict[str, tuple[Backoff, float]] = {}

    def failed(self, scenario: str) -> float:
        """A run of it came to nothing; returns the seconds that it is held."""
        with self._lock:
            backoff = self._held[scenario][0] if scenario in self._held else Backoff(self._first, self._cap)
            wait = backoff.failed()
            self._held[scenario] = (backoff, time.monotonic() + wait)
            return wait

    def succeeded(self, scenario: str) -> None:
        """A run of it finished its rows."""
        with self._lock:
            self._held.pop(scenario, None)

    def holds(self, scenario: str) -> bool:
        """Whether no run of it is to be made now."""
        with self._lock:
            return scenario in self._held and time.monotonic() < self._held[scenario][1]
