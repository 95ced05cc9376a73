"""The two moves that every row makes, to `inferred` and to `written`, as statements that are made once.

Made anew for each row, an update of twenty columns cost more to put together than to execute (docs/decisions/013).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import DateTime, Text, Update, bindparam, func, literal, text, update
from sqlalchemy.dialects.postgresql import JSONB

from pipelines.ledger.rows import Inference, WorkItem, Written
from pipelines.ledger.states import State, sources_of
from pipelines.ledger.tables import work
from pipelines.ledger.tries import APPEND

#: After a step that went through, the next one starts with a clean slate.
PROGRESS: Mapping[str, Any] = {
    "error_class": None,
    "error": None,
    "tries": 0,
    "failing_since": None,
    "failed_at": None,
    "waits_for": None,
}
_WITHOUT_MARKS = """CASE WHEN on_wire IS NOT NULL THEN ARRAY(
    SELECT mark FROM unnest(on_wire) WITH ORDINALITY AS each (mark, n)
    WHERE NOT mark = ANY (CAST(:new_answered AS text[])) ORDER BY n) END"""


def states(target: State) -> str:
    """From which a row may come to `target`, or where it stands already, as SQL."""
    return "work.state IN ({})".format(", ".join(f"'{name}'" for name in (*sources_of(target), target.value)))


def _move(target: State, values: Mapping[str, Any]) -> Update:
    return (
        update(work)
        .where(work.c.id == bindparam("row_id"), work.c.lease == bindparam("row_lease"), text(states(target)))
        .values(
            state=target.value,
            on_wire=text(_WITHOUT_MARKS),
            journal=text(APPEND.format(tried=":new_tried")),
            **PROGRESS,
            **values,
        )
    )


INFERRED = _move(
    State.INFERRED,
    {
        **{
            name: bindparam(f"new_{name}", type_=work.c[name].type)
            for name in (
                "drafts", "model", "model_version", "prompt_tokens", "completion_tokens", "model_seconds", "findings",
                "cut_statements", "asked", "verdicts", "counted",
            )
        },
        "attempts": 0,
        **{
            hop: func.coalesce(bindparam(f"new_{hop}", type_=DateTime(timezone=True)), work.c[hop])
            for hop in ("context_at", "answered_at", "guarded_at")
        },
    },
)  # fmt: skip
WRITTEN = _move(
    State.WRITTEN,
    {
        "written_at": text("clock_timestamp()"),
        "finished_at": text("clock_timestamp()"),
        "drafts": None,
        "written": func.coalesce(work.c.written, literal([], JSONB)).op("||")(bindparam("new_references", type_=JSONB)),
        "created": work.c.created + bindparam("new_created"),
        "recognised": work.c.recognised + bindparam("new_recognised"),
        "approval": func.coalesce(bindparam("new_approval", type_=Text), work.c.approval),
        "lease": None,
        "lease_until": None,
    },
)


def of_row(item: WorkItem, tried: str) -> dict[str, Any]:
    """What both statements ask of the row.

    Args:
        item: the row; the marks of its answered transactions are taken off.
        tried: the entry of its journal, as JSON.
    """
    return {"row_id": item.id, "row_lease": item.lease, "new_tried": tried, "new_answered": sorted(item.answered)}


def of_inference(inference: Inference, tally: Mapping[str, Any]) -> dict[str, Any]:
    """What `INFERRED` asks of the answer; `tally` gives "asked", "verdicts" and "counted"."""
    return {
        "new_drafts": dict(inference.drafts),
        "new_model": inference.model,
        "new_model_version": inference.model_version,
        "new_prompt_tokens": inference.prompt_tokens,
        "new_completion_tokens": inference.completion_tokens,
        "new_model_seconds": inference.model_seconds,
        "new_findings": inference.findings,
        "new_cut_statements": inference.cut_statements,
        **{f"new_{name}": tally[name] for name in ("asked", "verdicts", "counted")},
        **{f"new_{hop}": inference.times.get(hop) for hop in ("context_at", "answered_at", "guarded_at")},
    }


def of_written(written: Written) -> dict[str, Any]:
    """What `WRITTEN` asks of what the FHIR server said."""
    return {
        "new_references": list(written.references),
        "new_created": written.created,
        "new_recognised": written.recognised,
        "new_approval": written.approval,
    }
