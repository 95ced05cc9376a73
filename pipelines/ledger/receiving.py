"""What the gateway asks of the ledger: which events are known, and up to where each source was heard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.dialects.postgresql import insert

from pipelines.ledger import receiving_queries
from pipelines.ledger.tables import reconciled, subscriptions
from pipelines.ledger.verbs import Verbs


class Receiving(Verbs):
    """The gateway's verbs."""

    def known(self, event_ids: Sequence[str]) -> set[str]:
        """Those of the event identities that are in the ledger."""
        with self._engine.begin() as connection:
            return set(connection.execute(receiving_queries.KNOWN, {"ids": list(event_ids)}).scalars())

    def event_number(self, source: str, subscription: str, number: int) -> int:
        """Note an event number of a subscription; returns how many were skipped since the last (0: none).

        A number that is not higher than the last one is a redelivery, or the subscription was made anew with 1.
        """
        with self._engine.begin() as connection:
            values = {"source": source, "subscription": subscription, "number": number}
            return int(connection.execute(receiving_queries.EVENT_NUMBER, values).scalar_one())

    def reconciled_until(self, source: str) -> datetime | None:
        """Up to when a source was searched for changes; None when never."""
        with self._engine.begin() as connection:
            return connection.execute(receiving_queries.RECONCILED, {"source": source}).scalar()

    def set_reconciled_until(self, source: str, until: datetime) -> None:
        """Note that a source was searched up to `until`; it never goes back."""
        statement = insert(reconciled).values(source=source, until=until)
        with self._engine.begin() as connection:
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["source"],
                    set_={"until": text("greatest(reconciled.until, excluded.until)")},
                )
            )

    def subscription_gaps(self) -> list[Row[Any]]:
        """source, subscription, last_event_number, gaps, missed_events, seen_at of each subscription."""
        with self._engine.begin() as connection:
            return list(connection.execute(subscriptions.select()))
