"""One fault from beginning to end: a stream of events, what is done to them, the wait, the account."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from account import Outcome, drain, settle
from cases import Case
from flow import Flow
from house import House
from options import Options


@dataclass
class Trial:
    """What the body of a fault tells.

    Attributes:
        house: that it is done to.
        outcome: being filled.
        flow: of events, while the body runs.
        parked_for: event id -> the error class that the fault parks it for.
    """

    house: House
    outcome: Outcome
    flow: Flow | None = None
    cases: list[Case] = field(default_factory=list)
    parked_for: dict[str, str] = field(default_factory=dict)
    _ends: list[float] = field(default_factory=list)

    def ended(self, times: int = 1) -> None:
        """The fault is over for now: recovery counts from here."""
        self.outcome.injections += times
        self._ends.append(time.monotonic())

    @property
    def since(self) -> float:
        """When the fault was over for the last time."""
        return self._ends[-1] if self._ends else time.monotonic()

    def recoveries(self) -> list[float]:
        """From each end of the fault to the next draft at the hospital."""
        commits = [commit.at for commit in self.house.hospital.commits]
        following = [next((at - end for at in commits if at > end), None) for end in self._ends]
        return [seconds for seconds in following if seconds is not None]


@contextmanager
def trial(
    house: House, options: Options, name: str, *, copies: int = 1, streaming: bool = True, patience: float = 180.0
) -> Iterator[Trial]:
    """Do something to the house in the body; afterwards everything drains by itself and is accounted for.

    Args:
        house: with nothing under way.
        options: how much of it.
        name: of the fault.
        copies: how often each event is sent.
        streaming: whether events flow while the body runs; else it sends its own, and puts them into `cases`.
        patience: seconds that draining may take.
    """
    began = time.monotonic()
    outcome = Outcome(name)
    told = Trial(house, outcome)
    if streaming:
        told.flow = Flow(house, at_once=options.at_once, copies=copies)
        time.sleep(0.7)  # so that something is under way everywhere
    try:
        yield told
    finally:
        if told.flow is not None:
            told.flow.stop()
            told.cases += told.flow.cases
    drain(house, told.cases, outcome, since=told.since, patience=patience)
    outcome.progress += told.recoveries()
    if not outcome.progress and outcome.drained is not None:
        outcome.progress.append(outcome.drained)  # nothing was left to be written when it ended
    settle(house, told.cases, outcome, parked_for=told.parked_for)
    outcome.seconds = time.monotonic() - began
    house.broken = house.broken or not outcome.good
