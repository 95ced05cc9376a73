"""How much of each fault is done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """As asked for on the command line.

    Attributes:
        quick: each fault a little.
        kills: at each fail point.
        minutes: of the tenfold load.
        seed: of every choice.
    """

    quick: bool
    kills: int
    minutes: float
    seed: int

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
