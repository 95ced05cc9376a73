"""A dependency as the dispatcher's own threads see it, noted in the ledger for all to see."""

from __future__ import annotations

from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from pipelines.failures.policy import Trouble
from pipelines.ledger import Ledger


class Watched:
    """Notes that a dependency serves when that is new, and every time that it does not; one thread's own.

    Waiting is not done here: the thread has its own backoff. A ledger that does not answer has worse to say than this.

    Args:
        ledger: has the breakers.
        dependency: its name, see `pipelines.failures.dependencies`.
        trouble: what its failure means.
    """

    def __init__(self, ledger: Ledger, dependency: str, trouble: Trouble) -> None:
        self._ledger = ledger
        self._dependency = dependency
        self._trouble = trouble
        self._serves = False

    def served(self) -> None:
        """It has just done what it was asked for."""
        if not self._serves:
            with suppress(SQLAlchemyError):
                self._ledger.served([self._dependency])
                self._serves = True

    def failed(self, retry_after: float | None = None) -> None:
        """It has not."""
        self._serves = False
        with suppress(SQLAlchemyError):
            self._ledger.not_served(self._dependency, self._trouble.value, retry_after=retry_after)
