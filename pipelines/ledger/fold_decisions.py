"""Decisions into metric samples, each once, as `pipelines.ledger.fold` does it with finished work."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, Engine, Row

from fhir_adapters.decision import Verdict
from monitoring import metrics
from pipelines.ledger import decided_queries
from pipelines.ledger.fold import BATCH, Sample, add, add_samples, seconds


def fold_decisions(engine: Engine, size: int = BATCH) -> int:
    """Fold the decisions on work that is folded, `size` in one transaction; returns how many."""
    total = 0
    while True:
        with engine.begin() as connection:
            folded = _fold(connection, size)
        total += folded
        if folded < size:
            return total


def _fold(connection: Connection, size: int) -> int:
    rows = connection.execute(decided_queries.FOLD, {"size": size}).all()
    added: dict[Sample, float] = defaultdict(float)
    for row in rows:
        _count(added, row)
    add_samples(connection, added)
    return len(rows)


def _count(added: dict[Sample, float], row: Row[Any]) -> None:
    scenario = {"scenario": row.scenario}
    if row.asked:
        add(added, metrics.DECISIONS_WAITING, scenario, -1)
    if row.verdict == Verdict.WITHDRAWN:
        return
    by = {"model": row.model or metrics.NO_MODEL, "model_version": row.model_version or metrics.NO_MODEL}
    add(added, metrics.DECISIONS, {**scenario, **by, "verdict": row.verdict}, 1)
    if row.written_at is not None:
        add(added, metrics.DRAFT_TO_DECISION, scenario, seconds(row.written_at, row.decided_at))
