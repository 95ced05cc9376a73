"""The ledger as one object; its verbs stand by who uses them."""

from __future__ import annotations

from pipelines.ledger.breaking import Breaking
from pipelines.ledger.dead_letters import DeadLetters
from pipelines.ledger.deciding import Deciding
from pipelines.ledger.dispatching import Dispatching
from pipelines.ledger.receiving import Receiving
from pipelines.ledger.replaying import Replaying
from pipelines.ledger.staying import Staying
from pipelines.ledger.tallying import Tallying
from pipelines.ledger.working import Working


class Ledger(Dispatching, Working, Staying, Tallying, Receiving, Deciding, Breaking, DeadLetters, Replaying):
    """One ledger; cheap to make, safe to share between threads."""
