"""Finished rows into metric samples: each row counted once, in the transaction that marks it as counted.

So counters never go back, survive every restart and kill, and equal the ledger's rows; and a scrape reads `samples`,
whose size is the number of series, however many rows are finished.

A counter is kept as one sample under its own name, and so is a gauge that goes up with one row and down with another. A
histogram is kept as `<name>_sum` and, for each bucket that was
ever hit, `<name>_bucket` with its upper bound as `le`: the number of observations in that bucket alone. Summing them
up to `le`, as Prometheus shows them, is left to the reader (`monitoring.ledger_collector`).
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Engine, Row

from monitoring import metrics
from monitoring.metrics import Metric
from pipelines.ledger import counting_queries
from pipelines.ledger.states import State

#: Rows in one transaction: about 30 ms of it.
BATCH = 1000

Sample = tuple[str, str]
"""Name and labels (canonical JSON): the key of `samples`."""


def fold(connection: Connection, size: int = BATCH, deadlines: Mapping[str, float] = MappingProxyType({})) -> int:
    """Fold up to `size` finished rows; returns how many.

    Rows that another folder is about to fold are passed over. Samples are written in one order by all, so that two
    folders wait for each other and never deadlock.

    Args:
        connection: in a transaction; the caller commits it.
        size: rows at most.
        deadlines: scenario -> seconds from event to draft; of a scenario without one no deadline is counted.
    """
    rows = connection.execute(counting_queries.FOLD, {"size": size}).all()
    added: dict[Sample, float] = defaultdict(float)
    for row in rows:
        for metric, labels, value in _observations(row):
            add(added, metric, labels, value)
        if row.asks:
            add(added, metrics.DECISIONS_WAITING, {"scenario": row.scenario}, 1)
        if outcome := _timeliness(row, deadlines.get(row.scenario)):
            add(added, metrics.DEADLINES, _deadline_labels(row, outcome), 1)
        for name, series in (row.counted or {}).items():  # plugins' own: already under the keys of `samples`
            for labels, value in series.items():
                added[name, labels] += value
    add_samples(connection, added)
    return len(rows)


def fold_all(
    engine: Engine,
    size: int = BATCH,
    *,
    batches: int = 100,
    deadlines: Mapping[str, float] = MappingProxyType({}),
) -> int:
    """Fold what is finished, `size` rows a transaction and at most `batches` of them; returns how many rows."""
    total = 0
    for _ in range(batches):
        with engine.begin() as connection:
            folded = fold(connection, size, deadlines)
        total += folded
        if folded < size:
            break
    return total


def count_overdue(engine: Engine, deadlines: Mapping[str, float], size: int = BATCH) -> int:
    """Count each unfinished piece of work whose deadline has passed, once; returns how many were.

    So an outage in which nothing is finished is seen in the objectives while it lasts. Such a row is marked as counted
    in the same transaction, and its deadline is not counted again when it is folded.

    Args:
        engine: of the ledger.
        deadlines: scenario -> seconds from event to draft.
        size: rows in one transaction.
    """
    promised = {"scenarios": list(deadlines), "seconds": list(deadlines.values()), "size": size}
    total = 0
    while True:
        added: dict[Sample, float] = defaultdict(float)
        with engine.begin() as connection:
            rows = connection.execute(counting_queries.OVERDUE, promised).all()
            for row in rows:
                add(added, metrics.DEADLINES, _deadline_labels(row, metrics.DeadlineOutcome.MISSED), 1)
            add_samples(connection, added)
        total += len(rows)
        if len(rows) < size:
            return total


def _timeliness(row: Row[Any], deadline: float | None) -> metrics.DeadlineOutcome | None:
    """Whether a finished row kept its deadline; None where that is counted already or was never promised.

    A row that a newer version of its resource overtook in time owes nothing: the newer version's row does.
    """
    if deadline is None or row.late or row.replay:
        return None
    in_time = seconds(row.received_at, row.written_at or row.finished_at) <= deadline
    if row.state == State.WRITTEN:
        return metrics.DeadlineOutcome.MET if in_time else metrics.DeadlineOutcome.MISSED
    return None if row.state == State.STALE and in_time else metrics.DeadlineOutcome.MISSED


def _deadline_labels(row: Row[Any], outcome: metrics.DeadlineOutcome) -> Mapping[str, str]:
    return {"scenario": row.scenario, "stage": row.stage, "outcome": outcome.value}


def add_samples(connection: Connection, added: Mapping[Sample, float]) -> None:
    """Add to `samples`, in the one order of all."""
    if not added:
        return
    keys = sorted(added)
    columns = {
        "names": [name for name, _ in keys],
        "labels": [labels for _, labels in keys],
        "values": [added[key] for key in keys],
    }
    connection.execute(counting_queries.ADD_SAMPLES, columns)


def canonical(labels: Mapping[str, str]) -> str:
    """Labels as the one JSON text that is their key."""
    return json.dumps(labels, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def add(added: dict[Sample, float], metric: Metric, labels: Mapping[str, str], value: float) -> None:
    """Add a value, of a histogram an observation, to what is to be added to `samples`."""
    if metric.kind != "histogram":
        added[metric.name, canonical(labels)] += value
        return
    bound = (*metric.buckets, float("inf"))[bisect_left(metric.buckets, value)]
    added[f"{metric.name}_bucket", canonical({**labels, "le": metrics.le(bound)})] += 1
    added[f"{metric.name}_sum", canonical(labels)] += value


Observation = tuple[Metric, Mapping[str, str], float]


def _observations(row: Row[Any]) -> Iterator[Observation]:
    """What one finished row adds."""
    where = {"scenario": row.scenario, "stage": row.stage}
    yield metrics.WORK_FINISHED, {**where, "state": row.state, "model": row.model or metrics.NO_MODEL}, 1
    for metric, labels, value in (
        (metrics.FINDINGS, where, row.findings),
        (metrics.STATEMENTS_CUT, where, row.cut_statements),
        (metrics.DRAFTS, {**where, "outcome": metrics.DraftOutcome.CREATED.value}, row.created),
        (metrics.DRAFTS, {**where, "outcome": metrics.DraftOutcome.RECOGNISED.value}, row.recognised),
    ):
        if value:
            yield metric, labels, value
    if row.rules_written_at is not None:
        yield metrics.EVENT_TO_RULE_DRAFT, where, seconds(row.received_at, row.rules_written_at)
    if row.state == State.WRITTEN:
        yield from _hops(row, where)
    if row.model is not None:
        yield from _model(row)
    yield from _spent(row)
    yield from _verdicts(row)


def _hops(row: Row[Any], where: Mapping[str, str]) -> Iterator[Observation]:
    """Each hop since the one before it that was passed: together they are the whole way."""
    before: datetime = row.received_at
    for hop in metrics.HOPS:
        after: datetime | None = getattr(row, f"{hop}_at")
        if after is not None:
            yield metrics.HOP_DURATION, {**where, "hop": hop}, seconds(before, after)
            before = after
    yield metrics.EVENT_TO_DRAFT, where, seconds(row.received_at, row.written_at)


def _model(row: Row[Any]) -> Iterator[Observation]:
    labels = {**metrics.GEN_AI, "gen_ai_request_model": row.model, "scenario": row.scenario}
    yield metrics.MODEL_DURATION, labels, row.model_seconds
    yield metrics.MODEL_TOKENS, {**labels, "gen_ai_token_type": "input"}, row.prompt_tokens
    yield metrics.MODEL_TOKENS, {**labels, "gen_ai_token_type": "output"}, row.completion_tokens


def _spent(row: Row[Any]) -> Iterator[Observation]:
    """What each model did for the row, over all its tries."""
    for model, spent in (row.asked or {}).items():
        labels = {"model": model, "scenario": row.scenario}
        yield metrics.MODEL_REQUESTS, labels, spent["requests"]
        yield metrics.MODEL_SECONDS, labels, spent["seconds"]
        yield metrics.MODEL_TOKENS_SPENT, {**labels, "gen_ai_token_type": "input"}, spent["prompt_tokens"]
        yield metrics.MODEL_TOKENS_SPENT, {**labels, "gen_ai_token_type": "output"}, spent["completion_tokens"]
        if spent["cost"]:
            yield metrics.MODEL_COST, {**labels, "currency": spent["currency"]}, spent["cost"]


def _verdicts(row: Row[Any]) -> Iterator[Observation]:
    for guard, codes in (row.verdicts or {}).items():
        for code, actions in codes.items():
            for action, number in actions.items():
                labels = {"scenario": row.scenario, "guard": guard, "code": code, "action": action}
                yield metrics.GUARD_VERDICTS, labels, number


def seconds(before: datetime, after: datetime) -> float:
    """Never negative: gateway, broker, database and worker each have their own clock."""
    return max((after - before).total_seconds(), 0.0)
