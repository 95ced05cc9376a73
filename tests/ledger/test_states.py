"""The states and the moves between them."""

from __future__ import annotations

import itertools

import pytest

from pipelines.errors import IllegalMove
from pipelines.ledger.states import DONE, IN_RUN, MOVES, UNFINISHED, State, check, sources_of


def test_every_state_says_where_it_may_go():
    assert set(MOVES) == set(State)


def test_every_state_but_parked_is_either_done_or_unfinished():
    assert DONE | UNFINISHED | {State.PARKED} == set(State)
    assert not DONE & UNFINISHED
    assert IN_RUN < UNFINISHED


def test_what_is_done_stays_done():
    assert all(not MOVES[state] for state in DONE)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(State, State)))
def test_a_move_is_refused_exactly_where_it_is_not_written_down(before: State, after: State):
    assert (before.value in sources_of(after)) == (after in MOVES[before])
    if after in MOVES[before]:
        check(before, after)
    else:
        with pytest.raises(IllegalMove, match=f"from {before} to {after}"):
            check(before, after)


def test_a_drafted_row_is_reached_by_no_other_way_than_a_run():
    assert sources_of(State.WRITTEN) == (State.INFERRED.value,)
    assert sources_of(State.RUNNING) == (State.DISPATCHED.value, State.RUNNING.value, State.WAITING.value)
