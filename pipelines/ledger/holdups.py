"""What keeps a whole scenario waiting, for how long: noted by the dispatcher, kept with the run that ended it."""

from __future__ import annotations

import time
from enum import StrEnum

#: Of one scenario between two of its runs; beyond it the oldest is forgotten.
_MOST = 16


class Holdup(StrEnum):
    """A closed set; where `overview.Why` has the same reason it has the same name."""

    SWITCHED_OFF = "switched_off"
    NOT_INSTALLED = "not_installed"
    NO_DAG = "no_dag"
    PAUSED = "paused"
    AIRFLOW_DOWN = "airflow_down"
    RUNS_FULL = "runs_full"
    MODEL_FULL = "model_full"
    LINGER = "linger"  # it waits for company
    CAME_TO_NOTHING = "came_to_nothing"  # its last run did: it is held for a while


class Holdups:
    """Of all scenarios of one dispatcher; each as [reason, from, to], milliseconds since 1970."""

    def __init__(self) -> None:
        self._of: dict[str, list[list[str | int]]] = {}

    def note(self, scenario: str, why: Holdup) -> None:
        """It is held up now, and goes on being so until something else is noted or `ended` is called."""
        now = round(time.time() * 1000)
        known = self._of.setdefault(scenario, [])
        if known:
            known[-1][2] = now
        if not known or known[-1][0] != why.value:
            known.append([why.value, now, now])
            del known[:-_MOST]

    def note_all(self, why: Holdup) -> None:
        """Every scenario of which something waits is."""
        for scenario in self._of:
            self.note(scenario, why)

    def until_now(self, scenario: str) -> list[list[str | int]]:
        """What has held it up since its last run."""
        known = self._of.get(scenario, [])
        if known:
            known[-1][2] = round(time.time() * 1000)
        return known

    def ended(self, scenario: str) -> None:
        """It has its run, or nothing of it waits any longer."""
        self._of.pop(scenario, None)

    def forget(self, but: set[str]) -> None:
        """Nothing waits of any other scenario than these."""
        for scenario in self._of.keys() - but:
            self.ended(scenario)
