"""What the demo has to say in the end: drafts, the latency of each hop, and the sums that must be zero."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import quantiles
from typing import Any

from pipelines.ledger.journal import HOPS, Piece
from pipelines.ledger.states import State


@dataclass(frozen=True, slots=True)
class Hop:
    """Seconds from the hop before; over all drafts written."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Report:
    """The demo's last line.

    Attributes:
        patients: whose journeys were played.
        events: resource versions that were sent to careloom.
        replayed: of these, how many had happened in an earlier run and were only delivered again.
        drafts: resources at the FHIR server, by scenario.
        new: resources that this run created there.
        decided: verdict -> decisions that the demo's clinician made in this run, by PUT at the FHIR server.
        decisions: verdict -> decisions on these events' drafts in the ledger, earlier runs' included.
        unaccounted: records or pieces of work that are nowhere; must be 0.
        written_twice: drafts that stand at the FHIR server more often than once; must be 0.
        unwritten: state -> pieces of work that ended otherwise than written.
        hops: hop -> seconds.
    """

    patients: int
    events: int
    replayed: int
    drafts: dict[str, int]
    new: int
    decided: dict[str, int]
    decisions: dict[str, int]
    unaccounted: int
    written_twice: int
    unwritten: dict[str, int]
    hops: dict[str, Hop]
    broker: str
    model: str
    seconds: float

    def json_ready(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @property
    def failures(self) -> list[str]:
        """What must not be; empty when all is well."""
        found = [f"{count} pieces of work ended {state}" for state, count in self.unwritten.items()]
        if self.unaccounted:
            found.append(f"{self.unaccounted} unaccounted for")
        if self.written_twice:
            found.append(f"{self.written_twice} drafts written twice")
        return found


def drafts_by_scenario(work: Sequence[Piece]) -> dict[str, int]:
    """Scenario -> resources written for it, Device and Provenance included, each counted once."""
    references = {(piece.scenario, reference) for piece in work for reference in piece.references}
    return dict(sorted(Counter(scenario for scenario, _ in references).items()))


def unwritten(work: Sequence[Piece]) -> dict[str, int]:
    """State -> pieces that are not written."""
    return dict(Counter(piece.state.value for piece in work if piece.state is not State.WRITTEN))


def hop_seconds(work: Sequence[Piece]) -> dict[str, Hop]:
    """The latency of each hop, and of the whole way ("total"), over all that was written."""
    by_hop = {hop: [piece.seconds[hop] for piece in work if hop in piece.seconds] for hop in (*HOPS[1:], "total")}
    return {hop: _hop(values) for hop, values in by_hop.items() if values}


def _hop(values: list[float]) -> Hop:
    if len(values) == 1:
        return Hop(round(values[0], 3), round(values[0], 3))
    cuts = quantiles(values, n=20, method="inclusive")
    return Hop(round(cuts[9], 3), round(cuts[18], 3))
