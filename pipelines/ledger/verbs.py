"""What all verbs of the ledger share: the database, and the pace of another try."""

from __future__ import annotations

from sqlalchemy import Engine

from pipelines.failures.policy import USUAL, Pace


class Verbs:
    """Of one ledger; each in one short transaction. What a failure means is told by `pipelines.failures.policy`.

    Args:
        engine: from `pipelines.ledger.engine`.
        max_attempts: failures of its own after which a row is parked, where its policy names no number.
        backoff: seconds before the second attempt; doubles with each, with full jitter.
        backoff_cap: seconds that a wait never exceeds, but for a longer Retry-After.
    """

    def __init__(
        self, engine: Engine, *, max_attempts: int = 4, backoff: float = USUAL.first, backoff_cap: float = USUAL.cap
    ) -> None:
        self._engine = engine
        # for a verb that is one statement: without BEGIN and COMMIT it is one round trip instead of three
        self._at_once = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._max_attempts = max_attempts
        self._pace = Pace(backoff, backoff_cap)
