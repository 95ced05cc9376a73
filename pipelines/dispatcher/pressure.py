"""How much waits in the ledger for Airflow: beyond a limit Kafka is not read, as it keeps records better."""

from __future__ import annotations

import threading


class Pressure:
    """Shared by the thread that reads Kafka and the one that makes runs.

    Args:
        limit: rows beyond which reading stops.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting = 0
        self._lock = threading.Lock()

    def measured(self, waiting: int) -> None:
        """So many rows wait for runs that could be made, by the ledger."""
        with self._lock:
            self._waiting = waiting

    def added(self, rows: int) -> None:
        """So many rows came since."""
        with self._lock:
            self._waiting += rows

    @property
    def too_high(self) -> bool:
        """Whether reading has to stop."""
        with self._lock:
            return self._waiting > self._limit
