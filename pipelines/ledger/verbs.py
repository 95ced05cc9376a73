"""What all verbs of the ledger share: the database, and how long a row waits before another try."""

from __future__ import annotations

import random

from sqlalchemy import Engine


class Verbs:
    """Of one ledger; each in one short transaction.

    Args:
        engine: from `pipelines.ledger.engine`.
        max_attempts: failures of its own after which a row is parked.
        backoff: seconds before the second attempt; doubles with each, with full jitter.
        backoff_cap: seconds that a wait never exceeds.
    """

    def __init__(
        self, engine: Engine, *, max_attempts: int = 4, backoff: float = 1.0, backoff_cap: float = 60.0
    ) -> None:
        self._engine = engine
        self._max_attempts = max_attempts
        self._backoff = backoff
        self._backoff_cap = backoff_cap

    def _wait(self, attempt: int, retry_after: float | None) -> float:
        """Full jitter (Brooker, "Exponential Backoff And Jitter", 2015), never before the server's Retry-After."""
        jittered = random.uniform(0, min(self._backoff_cap, self._backoff * 2.0**attempt))  # noqa: S311 not a secret
        return max(jittered, min(retry_after or 0.0, self._backoff_cap))
