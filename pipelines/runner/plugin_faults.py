"""A fault in a plugin's code, told without what it was working on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.errors import ErrorClass, StepFailed
from pipelines.places import place
from plugins.errors import FAULTS


@contextmanager
def of_plugin(what: str) -> Iterator[None]:
    """Whatever is raised inside: its type and place are told; its message may hold patient data, and is not.

    Args:
        what: whose code runs, for example "rules() of the scenario".

    Raises:
        StepFailed: SCENARIO_ERROR.
    """
    try:
        yield
    except FAULTS as error:  # whatever a plugin raises is converted to what may be told of it
        raise StepFailed(
            ErrorClass.SCENARIO_ERROR, f"{what} failed: {type(error).__name__} at {place(error)}"
        ) from None
