"""The steps of one try of a piece of work: how long each took, for the ledger's journal and as spans.

`begin` opens the list of the running task; each `with timed(...)` adds to it, also in tasks that it starts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from pipelines.telemetry.tracing import Kind, Value, class_of, span


class Step(StrEnum):
    """What may take its time: a closed set; also the names of spans."""

    PAYLOAD = "payload"  # the event's bytes out of Kafka
    RECORD = "record"  # what the scenario asks of the patient's record
    RULES = "rules"
    KNOWLEDGE = "knowledge"  # passages that are to be quoted
    MODEL = "model"  # one question to one model, with the wait for its room
    GUARDS = "guards"
    WRITE = "write"  # one transaction to the FHIR server


#: The hop that a step belongs to (`monitoring.metrics.HOPS`), and the one that goes on when it is done.
_HOPS: Mapping[Step, tuple[str, str]] = {
    Step.PAYLOAD: ("context", "context"),
    Step.RECORD: ("context", "answered"),
    Step.RULES: ("answered", "answered"),
    Step.KNOWLEDGE: ("answered", "answered"),
    Step.MODEL: ("answered", "guarded"),
    Step.GUARDS: ("guarded", "written"),
    Step.WRITE: ("written", "answered"),  # what does not wait for a model is written before it is asked
}

#: More than a panel of four with three steps and second questions; beyond it a try keeps the first ones.
_MOST = 32


class Steps:
    """Of one try.

    Attributes:
        taken: [step, milliseconds since the try began, milliseconds it took, detail, error] each; the last two may
            lack.
    """

    __slots__ = ("_began", "taken")

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.taken: list[list[Any]] = []

    def add(self, name: Step, began: float, detail: str, error: str) -> None:
        """A step has ended."""
        if len(self.taken) < _MOST:
            start, took = round((began - self._began) * 1000), round((time.monotonic() - began) * 1000)
            last = [detail, error] if error else [detail] if detail else []
            self.taken.append([name.value, start, took, *last])

    def hop(self) -> str | None:
        """Where a failure that comes now happened: in the last step where that failed, else after it."""
        if not self.taken:
            return None
        name, _, _, *told = self.taken[-1]
        within, after = _HOPS[Step(name)]
        return within if len(told) > 1 else after

    def tell(self) -> Mapping[str, Any]:
        """What was taken since the last time that it was told, and how many milliseconds that was."""
        now = time.monotonic()
        told = {"ms": round((now - self._began) * 1000), "steps": self.taken}
        self._began, self.taken = now, []
        return told


_steps: ContextVar[Steps | None] = ContextVar("careloom_steps", default=None)


def begin() -> None:
    """The running task begins another try."""
    _steps.set(Steps())


def tell() -> Mapping[str, Any]:
    """What the running task has done since it was last told, as the journal keeps it; nothing where there is no try."""
    steps = _steps.get()
    return {} if steps is None else steps.tell()


def hop() -> str | None:
    """The hop in which the running task fails if it does so now; None before its first step. Ask before `tell`."""
    steps = _steps.get()
    return None if steps is None else steps.hop()


class timed:
    """`with timed(Step.RULES): ...`

    Args:
        name: what is done.
        detail: a name from a closed set, for example the model's.
        kind: of the span.
        attributes: of the span.
    """

    __slots__ = ("_began", "_detail", "_name", "_span")

    def __init__(self, name: Step, detail: str = "", kind: Kind = "internal", **attributes: Value) -> None:
        self._name = name
        self._detail = detail
        self._span = span(f"{name.value} {detail}".rstrip(), kind, attributes)

    def set(self, **attributes: Value) -> None:
        """Further attributes of the span."""
        self._span.set(**attributes)

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._span.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._span.__exit__(kind, error, trace)
        if (steps := _steps.get()) is not None:
            steps.add(self._name, self._began, self._detail, class_of(error) if error is not None else "")
