"""The runbooks of `monitoring/runbooks` as HTML, and which of them is for what."""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt
from markupsafe import Markup

from pipelines.ledger.overview import Wait, Why

_FOLDER = Path(__file__).parents[1] / "runbooks"
#: Seconds after which nothing that is ready should still wait: then it is the dispatcher that takes nothing.
SLOW = 60.0

_OF = {
    Why.EVERYTHING_OFF: "CareloomSwitchedOff",
    Why.SCENARIO_OFF: "CareloomSwitchedOff",
    Why.NOT_INSTALLED: "CareloomScenarioNotInstalled",
    Why.NO_DAG: "CareloomAirflowImportErrors",
    Why.PAUSED: "CareloomScenarioPaused",
    Why.BEHIND_PARKED: "CareloomWorkParked",
    Why.DEPENDENCY_DOWN: "CareloomDependencyDown",
    Why.MODEL_OFF: "CareloomSwitchedOff",
    Why.BACKOFF: "CareloomHighErrorRate",
    Why.AIRFLOW_DOWN: "CareloomDependencyDown",
}
_SLOW = {
    Why.READY: "CareloomDispatcherDown",
    Why.RUNS_FULL: "CareloomOldestUnfinishedTooOld",
    Why.MODEL_FULL: "CareloomOldestUnfinishedTooOld",
}


def of(wait: Wait) -> str:
    """The runbook of what makes work wait; "" where nothing is wrong."""
    if wait.why is Why.DEPENDENCY_DOWN:
        return of_dependency(wait.what)
    return _OF.get(wait.why) or (_SLOW.get(wait.why, "") if wait.oldest > SLOW else "")


def of_dependency(dependency: str) -> str:
    """The runbook of a dependency that is down."""
    if dependency == "kafka":
        return "CareloomBrokerUnavailable"
    return "CareloomModelServerDown" if dependency.startswith("model:") else "CareloomDependencyDown"


def read(name: str) -> Markup | None:
    """A runbook as HTML; None where there is none of that name. HTML in its text is shown as text."""
    file = _FOLDER / f"{name}.md"
    if not re.fullmatch(r"[A-Za-z]+", name) or not file.is_file():
        return None
    made = MarkdownIt("commonmark", {"html": False}).enable("table")
    return Markup(made.render(file.read_text("utf-8")))  # noqa: S704  our own file, rendered without HTML of its own
