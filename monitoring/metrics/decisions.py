"""What the ledger says of what persons decide on drafts."""

from __future__ import annotations

from monitoring.metrics.declaring import DECISION_BUCKETS, ledger

DECISIONS = ledger(
    "counter",
    "careloom_decisions_total",
    "Pieces of work on whose drafts a named person has decided.",
    "scenario",
    "model",
    "model_version",
    "verdict",
)
DRAFT_TO_DECISION = ledger(
    "histogram",
    "careloom_draft_to_decision_seconds",
    "From the written drafts to a person's decision on them.",
    "scenario",
    buckets=DECISION_BUCKETS,
)
DECISIONS_WAITING = ledger(
    "gauge",
    "careloom_decisions_waiting_items",
    "Pieces of work whose drafts wait for a person's decision.",
    "scenario",
)
DECISIONS_NOT_TAKEN = ledger(
    "counter", "careloom_decisions_not_taken_total", "Decisions that came in and do not count, by why.", "reason"
)
