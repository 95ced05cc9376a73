"""What became of events: read-only, for people and for the demo; never the patient's data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from sqlalchemy import Engine, func, select

from pipelines.ledger.states import UNFINISHED, State
from pipelines.ledger.tables import work

#: The hops of an event, in order; each lasts from the time before it to its own.
HOPS = ("received", "durable", "matched", "dispatched", "started", "context", "answered", "guarded", "written")


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of work as it stands: state, counts and the times of its hops, None where it has not come to."""

    event_id: str
    scenario: str
    stage: str
    state: State
    error_class: str | None
    error: str | None
    model: str | None
    references: Sequence[str]
    created: int
    recognised: int
    times: Sequence[datetime | None]

    @property
    def unfinished(self) -> bool:
        """Whether it is still under way."""
        return self.state in UNFINISHED

    @property
    def seconds(self) -> dict[str, float]:
        """Hop -> seconds, for the hops whose both ends are known; "total" from received to written."""
        known = {
            hop: (after - before).total_seconds()
            for (before, after), hop in zip(pairwise(self.times), HOPS[1:], strict=True)
            if before is not None and after is not None
        }
        first, last = self.times[0], self.times[-1]
        if first is not None and last is not None:
            known["total"] = (last - first).total_seconds()
        return known


def pieces(engine: Engine, event_ids: Iterable[str]) -> list[Piece]:
    """All work of these events, in the order in which it was made."""
    times = [work.c[f"{hop}_at"] for hop in HOPS]
    statement = (
        select(
            work.c.event_id,
            work.c.scenario,
            work.c.stage,
            work.c.state,
            work.c.error_class,
            work.c.error,
            work.c.model,
            work.c.written,
            work.c.created,
            work.c.recognised,
            *times,
        )
        .where(work.c.event_id.in_(list(event_ids)))
        .order_by(work.c.id)
    )
    with engine.connect() as connection:
        return [
            Piece(
                event_id=row.event_id,
                scenario=row.scenario,
                stage=row.stage,
                state=State(row.state),
                error_class=row.error_class,
                error=row.error,
                model=row.model,
                references=tuple(row.written or ()),
                created=row.created,
                recognised=row.recognised,
                times=tuple(getattr(row, f"{hop}_at") for hop in HOPS),
            )
            for row in connection.execute(statement)
        ]


def created(engine: Engine) -> int:
    """How many resources were ever created at FHIR servers."""
    with engine.connect() as connection:
        return int(connection.execute(select(func.coalesce(func.sum(work.c.created), 0))).scalar_one())
