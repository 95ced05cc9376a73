"""How much of each fault is done."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """As asked for on the command line.

    Attributes:
        quick: each fault a little.
        kills: at each fail point.
        seconds: of the tenfold load.
        rate: events a second of the normal load; None for an eighth of what the house is seen to carry.
        seed: of every choice.
        limit: seconds that the kills may take until they are stopped and accounted for.
        over: set when a person has had enough: the fault under way ends, drains and is accounted for.
    """

    quick: bool
    kills: int
    seconds: float
    seed: int
    rate: float | None = None
    limit: float = 3000.0
    over: threading.Event = field(default_factory=threading.Event)

    def pause(self, seconds: float) -> None:
        """As long as a fault lasts; shorter where it is over."""
        self.over.wait(seconds)

    def goes_on(self, began: float) -> bool:
        """Whether to go on with what began then (monotonic)."""
        return not self.over.is_set() and time.monotonic() - began < self.limit

    @property
    def fault(self) -> float:
        """Seconds that a passing fault lasts."""
        return 1.5 if self.quick else 8.0

    @property
    def least(self) -> int:
        """Requests that a passing fault must have met."""
        return 5 if self.quick else 100

    @property
    def at_once(self) -> int:
        """Events under way at the same time."""
        return 12 if self.quick else 40

    @property
    def outage(self) -> float:
        """Seconds that something is away."""
        return 2.0 if self.quick else 12.0

    @property
    def rounds(self) -> int:
        """How often something is killed that takes seconds to come back."""
        return 1 if self.quick else 6

    @property
    def events(self) -> int:
        """Events of a fault that lies in the events themselves."""
        return 48 if self.quick else 480
