"""The journal of a row: one entry for each try that ended, written by the statement that ends it.

An entry is JSON: "run", "end" (see `End`), "to" (milliseconds since 1970, by the database's clock), and where they are
known "ms" (how long the try went), "steps" (`telemetry.steps`), "class" of a failure, "for" what it waits. Nothing
of a patient stands in it, and no text.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, text

from pipelines.ledger.rows import WorkItem
from pipelines.telemetry.steps import tell

#: Entries kept: the first, and the last ones.
KEPT = 40


class End(StrEnum):
    """How a try ended: a closed set."""

    RULES = "rules"  # not yet: what cannot wait for a model is written
    INFERRED = "inferred"
    WRITTEN = "written"
    STALE = "stale"
    FAILED = "failed"
    PARKED = "parked"
    WAITS = "waits"  # for what is down
    BEHIND = "behind"  # its rules have run; an earlier one of its patient goes first
    HELD_BACK = "held back"  # switched off, or an earlier one of its patient did not come through
    LOST = "lost"  # its worker was
    RELEASED = "released"  # its run ended before anybody had begun on it
    RETRIED = "retried"  # a person decided
    DISCARDED = "discarded"


#: SQL that adds `:tried`; for statements that are text.
APPEND = f"""(CASE WHEN jsonb_array_length(journal) >= {KEPT} THEN journal - 1 ELSE coalesce(journal, '[]') END)
    || jsonb_build_array(CAST({{tried}} AS jsonb)
        || jsonb_build_object('to', CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)))"""
_APPEND = APPEND.format(tried=":tried")


def entry(item: WorkItem, end: End, **more: Any) -> str:
    """One more entry as JSON; `more` without a value is left out."""
    told = {key.rstrip("_"): value for key, value in more.items() if value is not None}
    return json.dumps({"run": item.run_id, "end": end.value, **tell(), **told}, separators=(",", ":"))


def tried(item: WorkItem, end: End, **more: Any) -> dict[str, ColumnElement[Any]]:
    """The column of a row with one more `entry`."""
    return {"journal": text(_APPEND).bindparams(tried=entry(item, end, **more))}  # type: ignore[dict-item]
