"""Scenarios of which a run always stays: when the dispatcher has to decide on the next one."""

from __future__ import annotations

import time
from collections.abc import Collection

#: Seconds from one standing run of a scenario to the next: where each ends at once, runs are not begun without end.
_EVERY = 30.0


class Standing:
    """Of one dispatcher.

    Args:
        scenarios: of which a run is to stand.
        every: seconds between two standing runs of a scenario.
    """

    def __init__(self, scenarios: Collection[str] = (), every: float = _EVERY) -> None:
        self._scenarios = tuple(dict.fromkeys(scenarios))
        self._every = every
        self._begun: dict[str, float] = {}

    def due(self, busy: Collection[str]) -> list[str]:
        """Scenarios that need one now.

        Args:
            busy: scenarios with rows that may be taken, or with a run: those rows get a run, which stays as well.
        """
        now = time.monotonic()
        return [
            scenario
            for scenario in self._scenarios
            if scenario not in busy and now - self._begun.get(scenario, float("-inf")) >= self._every
        ]

    def begun(self, scenario: str) -> None:
        """One was decided on, or cannot be now."""
        self._begun[scenario] = time.monotonic()
