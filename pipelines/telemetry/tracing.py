"""Spans, where they are switched on; without an endpoint nothing of OpenTelemetry is imported, and a span costs a look.

A span is made only in a trace that its context says is sampled, and becomes the context (`trace_context.current`) of
what happens in it. Attributes come from `ALLOWED`: ids, names of closed sets and numbers, nothing of a patient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import Token
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from fhir_adapters import trace_context
from fhir_adapters.trace_context import TraceContext
from pipelines.config import Tracing
from pipelines.errors import ConfigError

Value = str | int | float | bool | Sequence[str]
Kind = Literal["internal", "server", "client", "producer", "consumer"]

#: Every attribute that a span may have; another is a fault of ours, and a test fails.
ALLOWED = frozenset(
    {
        "careloom.answer.cut",
        "careloom.attempt",
        "careloom.event.id",
        "careloom.fhir.part",
        "careloom.findings",
        "careloom.outcome",
        "careloom.resource.type",
        "careloom.run.id",
        "careloom.run.size",
        "careloom.scenario.id",
        "careloom.scenario.version",
        "careloom.source",
        "careloom.work.id",
        "error.type",
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.max_tokens",
        "gen_ai.request.model",
        "gen_ai.request.temperature",
        "gen_ai.response.finish_reasons",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "messaging.destination.name",
        "messaging.operation.type",
        "messaging.system",
    }
)


class Span(Protocol):
    """One span under way, entered and left by `with`."""

    @property
    def context(self) -> TraceContext | None:
        """Its own; None where it is not recorded."""
        ...

    def set(self, **attributes: Value) -> None:
        """Further attributes; "__" in a name stands for a dot."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Recording(Protocol):
    """One span of a recorder's."""

    context: TraceContext

    def set(self, name: str, value: Value) -> None:
        """An attribute."""
        ...

    def end(self, error: str | None, at: datetime | None) -> None:
        """It is over; `error` is a class, never a message."""
        ...


class Recorder(Protocol):
    """What makes spans: `pipelines.telemetry.tracing_otel`."""

    def start(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        own: TraceContext | None,
        links: Sequence[TraceContext],
        began: datetime | None,
    ) -> Recording:
        """Begin a span below `parent`; or, with `own`, the root of a trace with just these ids."""
        ...

    def flush(self, seconds: float) -> bool:
        """Send what there is, for so long at most; whether all was sent."""
        ...


class _Nothing:
    """A span that is not recorded."""

    __slots__ = ()
    context = None

    def set(self, **attributes: Value) -> None:
        """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


NOTHING = _Nothing()
_recorder: Recorder | None = None
_share = 0.0


class _Recorded:
    """A span that is."""

    __slots__ = ("_recording", "_token")

    def __init__(self, recording: Recording, attributes: Mapping[str, Value]) -> None:
        self._recording = recording
        self._token: Token[TraceContext | None] | None = None
        self.set(**attributes)

    @property
    def context(self) -> TraceContext | None:
        return self._recording.context

    def set(self, **attributes: Value) -> None:
        for name, value in attributes.items():
            dotted = name.replace("__", ".")
            if dotted not in ALLOWED:
                raise ValueError(f"{dotted} is no attribute that a span may have; see tracing.ALLOWED")
            self._recording.set(dotted, value)

    def __enter__(self) -> Self:
        self._token = trace_context.current.set(self._recording.context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            trace_context.current.reset(self._token)
        self._recording.end(None if error is None else class_of(error), None)


def span(
    name: str,
    kind: Kind = "internal",
    attributes: Mapping[str, Value] | None = None,
    *,
    parent: TraceContext | None = None,
    own: TraceContext | None = None,
    links: Sequence[TraceContext] = (),
    began: datetime | None = None,
) -> Span:
    """A span to be entered.

    Args:
        name: of a closed set.
        kind: OpenTelemetry's.
        attributes: of `ALLOWED`, with "__" for each dot.
        parent: what it happens in; None for the running task's.
        own: its own ids, for the first span of a trace that we have made; `parent` is left out then.
        links: contexts of others that it serves as well.
        began: when, if that was before now.
    """
    if _recorder is None:
        return NOTHING
    context = own or parent or trace_context.current.get()
    if context is None or not context.sampled:
        return NOTHING
    return _Recorded(_recorder.start(name, kind, None if own else context, own, links, began), attributes or {})


def past(
    name: str, parent: TraceContext | None, began: datetime, ended: datetime, kind: Kind = "internal", **more: Value
) -> None:
    """A span of something that is over already."""
    if _recorder is not None and parent is not None and parent.sampled:
        recording = _recorder.start(name, kind, parent, None, (), began)
        _Recorded(recording, more)
        recording.end(None, ended)


def on() -> bool:
    """Whether spans are made."""
    return _recorder is not None


def share() -> float:
    """Of traces that begin here and are recorded; 0 where no spans are made."""
    return _share


def start(settings: Tracing, process: str) -> None:
    """Switch spans on for this process, where the configuration names an endpoint; called once more it does nothing.

    Raises:
        ConfigError: there is an endpoint, and OpenTelemetry is not installed.
    """
    global _recorder, _share
    if settings.endpoint is None or _recorder is not None:
        return
    try:
        from pipelines.telemetry.tracing_otel import OtelRecorder
    except ImportError as error:
        raise ConfigError(
            f"tracing.endpoint is set, and {error.name} is not installed; pip install 'careloom[otel]', or leave it out"
        ) from None
    _recorder, _share = OtelRecorder(settings, process), settings.share


def use(recorder: Recorder | None) -> None:
    """Have another recorder, or none; for tests."""
    global _recorder, _share
    _recorder, _share = recorder, 1.0 if recorder else 0.0


def flush(seconds: float) -> None:
    """Send what there is, for so long at most: before a process of a task ends."""
    if _recorder is not None:
        _recorder.flush(seconds)


def class_of(error: BaseException) -> str:
    """What stands as `error.type`: our own class of a failed step, else the exception's type; never a message."""
    own: Any = getattr(error, "error_class", None)
    return str(own.value) if own is not None and hasattr(own, "value") else type(error).__name__
