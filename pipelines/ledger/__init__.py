"""The ledger: inbox, outbox and source of metrics in one PostgreSQL database.

One row per (event, scenario, scenario version). A Kafka offset is committed only after its rows are; nothing outside
this package changes a row's state, and every change by a worker carries the lease it holds.
"""

from __future__ import annotations

from pipelines.ledger.database import engine, migrate
from pipelines.ledger.intake import record
from pipelines.ledger.rows import (
    Account,
    Decision,
    EventRow,
    Incoming,
    Inference,
    Match,
    Poison,
    Position,
    Recorded,
    Run,
    WorkItem,
    Written,
)
from pipelines.ledger.states import State
from pipelines.ledger.store import Ledger

__all__ = [
    "Account",
    "Decision",
    "EventRow",
    "Incoming",
    "Inference",
    "Ledger",
    "Match",
    "Poison",
    "Position",
    "Recorded",
    "Run",
    "State",
    "WorkItem",
    "Written",
    "engine",
    "migrate",
    "record",
]
