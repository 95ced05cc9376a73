"""Dead letters as a person sees them: their numbers, their lines, and all that is known of one; no patient data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from pipelines.errors import ErrorClass, PoisonReason

if TYPE_CHECKING:
    from pipelines.ledger import Position
    from pipelines.ledger.dead_letters import PoisonRow

#: The hops of a piece of work in their order, as far as one that failed may have come.
_HOPS = ("received", "durable", "matched", "dispatched", "started", "rules_written", "context", "answered", "guarded")

_TIME = "%Y-%m-%d %H:%M:%S %Z"

_STEPS = {
    "infer": "infer: from the event to drafts",
    "write_back": "write_back: the drafts are computed, and the FHIR server did not take them",
}


@dataclass(frozen=True, slots=True)
class Name:
    """The number of a dead letter: `12` is a piece of work, `p12` a record that is no event."""

    number: int
    poison: bool

    @classmethod
    def read(cls, text: str) -> Name:
        """From what a person typed.

        Raises:
            typer.BadParameter: it is no such number.
        """
        digits = text.removeprefix("p")
        if not digits.isascii() or not digits.isdecimal() or len(digits) > 18:
            raise typer.BadParameter(
                f"{text!r} is no dead letter: 12 is a piece of work, p12 a record that is no event"
            )
        return cls(int(digits), text.startswith("p"))

    def __str__(self) -> str:
        return f"{'p' if self.poison else ''}{self.number}"


def read_class(text: str) -> ErrorClass | PoisonReason | None:
    """What `--class` names: a class of failed work, or a reason for which a record is no event.

    Raises:
        typer.BadParameter: it is neither.
    """
    if not text:
        return None
    for kind in (ErrorClass, PoisonReason):
        if text in {member.value for member in kind}:
            return kind(text)
    raise typer.BadParameter(
        f"{text!r} is no class; of work: {', '.join(ErrorClass)}; of records that are no events:"
        f" {', '.join(PoisonReason)}"
    )


def work_json(row: Any) -> dict[str, Any]:
    """A parked piece of work as JSON has it; the patient's key stays out."""
    plain = dict(row._mapping)
    return {
        "kind": "work",
        "id": str(plain.pop("id")),
        **{name: value.isoformat() if isinstance(value, datetime) else value for name, value in plain.items()},
    }


def poison_json(row: PoisonRow) -> dict[str, Any]:
    """A record that is no event as JSON has it."""
    return {
        "kind": "poison",
        "id": f"p{row.id}",
        "reason": row.reason.value,
        "topic": row.position.topic,
        "partition": row.position.partition,
        "offset": row.position.offset,
        "record_at": row.record_at.isoformat(),
        "at": row.at.isoformat(),
        "copy": place(row.copy),
        "tries": row.tries,
        "note": row.note,
    }


def work_lines(row: Any) -> Iterator[tuple[str, str]]:
    """All that is known of a parked piece of work, as (what, text)."""
    from pipelines.failures.policy import POLICIES

    yield "scenario", f"{row.scenario} {row.scenario_version}"
    yield "class", row.error_class or "none"
    yield "what happened", row.error or "nothing is written down"
    yield "failed in", _STEPS[row.step]
    yield "attempts", f"{row.attempts} of its own, {row.tries} tries in all"
    if row.failing_since is not None:
        yield "failing", f"from {row.failing_since:{_TIME}} to {row.failed_at:{_TIME}}"
    yield "event", f"{row.event_id} ({row.resource_type} of source {row.source})"
    yield "bytes", f"{row.topic}[{row.partition}]@{row.offset}"
    if row.replay:
        yield "replay", f"number {row.replay}"
    yield "Airflow runs", ", ".join(row.tried_in or ()) or "none"
    yield "hops", ""
    yield from ((f"  {hop}", when) for hop, when in _hops(row._mapping))
    if row.model:
        yield "model", row.model
    yield "held back", f"{row.held_back} later events of the same patient in this scenario wait for a decision"
    if row.error_class is not None:
        yield "to be done", POLICIES[ErrorClass(row.error_class)].remedy.replace("EVENT", row.event_id)
    yield "then", f"careloom dead-letters retry {row.id} --why ...   or   discard {row.id} --why ..."


def poison_lines(row: PoisonRow) -> Iterator[tuple[str, str]]:
    """All that is known of a record that is no event, as (what, text)."""
    from pipelines.ledger.rows import UNKNOWN_TIME

    yield "reason", row.reason.value
    yield "record", place(row.position) or ""
    yield "written at", "unknown" if row.record_at == UNKNOWN_TIME else f"{row.record_at:{_TIME}}"
    yield "read at", f"{row.at:{_TIME}}"
    yield "copy", place(row.copy) or "none; the record stays as long as its topic's retention"
    yield "read again", f"{row.tries} times{f'; {row.note}' if row.note else ''}"
    yield "held back", "nothing: no patient is known of it"
    yield "then", f"careloom dead-letters retry p{row.id} --why ...   or   discard p{row.id} --why ..."


def place(position: Position | None) -> str | None:
    """A position in Kafka as text."""
    return None if position is None else f"{position.topic}[{position.partition}]@{position.offset}"


def _hops(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    before: datetime | None = None
    for hop in _HOPS:
        at: datetime | None = row[f"{hop}_at"]
        if at is None:
            continue
        since = "" if before is None else f"  (+{(at - before).total_seconds():.3f} s)"
        yield hop, f"{at:%Y-%m-%d %H:%M:%S.%f %Z}{since}"
        before = at
