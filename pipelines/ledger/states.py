"""The states of one piece of work, and the only moves between them.

    waiting ──> dispatched ──> running ──> inferred ──> written
       ^            │             │            │
       └────────────┴─────────────┘            │      any unfinished state ──> stale      (a newer version came)
       ^   worker lost, or failed, to try again│      waiting, running, inferred ──> parked (failed for good)
       └───────────────────────────────────────┘      parked ──> waiting | discarded      (a person decided)

A run that stays takes `waiting` rows to `running` at once.

A `parked` row is the dead letter: it holds back later work of the same patient in the same scenario, nobody else's.
"""

from __future__ import annotations

from enum import StrEnum

from pipelines.errors import IllegalMove


class State(StrEnum):
    """Where one (event, scenario, scenario version) stands."""

    WAITING = "waiting"
    DISPATCHED = "dispatched"
    RUNNING = "running"
    INFERRED = "inferred"
    WRITTEN = "written"
    STALE = "stale"
    PARKED = "parked"
    DISCARDED = "discarded"


MOVES: dict[State, frozenset[State]] = {
    State.WAITING: frozenset({State.DISPATCHED, State.RUNNING, State.STALE, State.PARKED}),
    State.DISPATCHED: frozenset({State.RUNNING, State.WAITING, State.STALE, State.PARKED}),
    State.RUNNING: frozenset({State.RUNNING, State.INFERRED, State.WAITING, State.STALE, State.PARKED}),
    State.INFERRED: frozenset({State.WRITTEN, State.WAITING, State.STALE, State.PARKED}),
    State.WRITTEN: frozenset(),
    State.STALE: frozenset(),
    State.PARKED: frozenset({State.WAITING, State.DISCARDED, State.STALE}),
    State.DISCARDED: frozenset(),
}

UNFINISHED = frozenset({State.WAITING, State.DISPATCHED, State.RUNNING, State.INFERRED})
IN_RUN = frozenset({State.DISPATCHED, State.RUNNING, State.INFERRED})
DONE = frozenset({State.WRITTEN, State.STALE, State.DISCARDED})


def sources_of(target: State) -> tuple[str, ...]:
    """The states from which `target` can be reached, for a WHERE clause."""
    return tuple(sorted(state.value for state, targets in MOVES.items() if target in targets))


def check(before: State, after: State) -> None:
    """Refuse a move that is not written down.

    Raises:
        IllegalMove: it is not.
    """
    if after not in MOVES[before]:
        allowed = ", ".join(sorted(MOVES[before])) or "nothing: it is final"
        raise IllegalMove(f"work cannot go from {before} to {after}; from {before} it may go to {allowed}")
