"""Which of the ledger's metrics finished rows and decisions are folded into (`pipelines.ledger.fold`)."""

from __future__ import annotations

from monitoring.metrics.answers import (
    FINDINGS,
    GUARD_VERDICTS,
    HOOK_ERRORS,
    MODEL_COST,
    MODEL_DURATION,
    MODEL_REQUESTS,
    MODEL_SECONDS,
    MODEL_TOKENS,
    MODEL_TOKENS_SPENT,
    STATEMENTS_CUT,
)
from monitoring.metrics.decisions import DECISIONS, DECISIONS_WAITING, DRAFT_TO_DECISION
from monitoring.metrics.work import (
    DEADLINES,
    DRAFTS,
    EVENT_TO_DRAFT,
    EVENT_TO_RULE_DRAFT,
    HOP_DURATION,
    WORK_FINISHED,
)

FOLDED = (
    WORK_FINISHED,
    DEADLINES,
    FINDINGS,
    STATEMENTS_CUT,
    DRAFTS,
    HOP_DURATION,
    EVENT_TO_DRAFT,
    EVENT_TO_RULE_DRAFT,
    MODEL_DURATION,
    MODEL_TOKENS,
    MODEL_REQUESTS,
    MODEL_TOKENS_SPENT,
    MODEL_SECONDS,
    MODEL_COST,
    GUARD_VERDICTS,
    HOOK_ERRORS,
    DECISIONS,
    DRAFT_TO_DECISION,
    DECISIONS_WAITING,
)
