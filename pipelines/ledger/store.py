"""The ledger as one object; its verbs stand by who uses them."""

from __future__ import annotations

from pipelines.ledger.deciding import Deciding
from pipelines.ledger.dispatching import Dispatching
from pipelines.ledger.receiving import Receiving
from pipelines.ledger.working import Working


class Ledger(Dispatching, Working, Receiving, Deciding):
    """One ledger; cheap to make, safe to share between threads."""
