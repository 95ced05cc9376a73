"""W3C Trace Context (https://www.w3.org/TR/trace-context/): read from a sender, made from an identity, passed on.

What is passed on stands in `current`, which every outgoing request looks at; nothing here knows OpenTelemetry.
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass

# Section 3.2.2: version ff is invalid, as is an id of zeros; of a version that we do not know the first four fields are
# read, if nothing or a hyphen follows them; version 00 has nothing after them.
_TRACEPARENT = re.compile(
    r"(?:00(?=.{53}$)|(?!00|ff)[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)
#: Section 3.3.1.3: simple and multi-tenant keys; a value is printable ASCII without comma and equals sign.
_MEMBER = (
    r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_TRACESTATE = re.compile(rf"[ \t]*(?:{_MEMBER})?[ \t]*(?:,[ \t]*(?:{_MEMBER})?[ \t]*){{0,31}}")
#: Section 3.3.1.5: as much has to be passed on.
_LONGEST_STATE = 512


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where in which trace something happens.

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits, of what caused it.
        sampled: whether spans of it are recorded.
        state: the other systems' own notes (tracestate), passed on as they came; "" for none.
    """

    trace_id: str
    span_id: str
    sampled: bool = False
    state: str = ""

    @property
    def traceparent(self) -> str:
        """As a header, of version 00."""
        return f"00-{self.trace_id}-{self.span_id}-{self.sampled:02x}"

    @property
    def headers(self) -> dict[str, str]:
        """What an outgoing request carries."""
        named = {"traceparent": self.traceparent}
        if self.state:
            named["tracestate"] = self.state
        return named


#: The context of what the running task works on; None where it works on nothing of a sender's.
current: ContextVar[TraceContext | None] = ContextVar("careloom_trace_context", default=None)


def outgoing() -> dict[str, str]:
    """The headers that a request of the running task carries: none where there is no context."""
    context = current.get()
    return {} if context is None else context.headers


def parse(traceparent: str | None, tracestate: str | None = None) -> TraceContext | None:
    """What a sender says; None where it says nothing, or something that is no trace context.

    A tracestate is looked at only beside a traceparent that is one, and left out where it is malformed or too long.
    """
    if not traceparent:
        return None
    found = _TRACEPARENT.fullmatch(traceparent)
    if found is None:
        return None
    return TraceContext(found[1], found[2], bool(int(found[3], 16) & 1), state_of(tracestate))


def state_of(tracestate: str | None) -> str:
    """A tracestate header that may be passed on; "" for none, and for one that is malformed or too long."""
    if not tracestate or len(tracestate) > _LONGEST_STATE or not _TRACESTATE.fullmatch(tracestate):
        return ""
    return tracestate.strip()


def derived(identity: str, share: float = 0.0) -> TraceContext:
    """The context of something whose sender has none: the same for the same thing, however often it is asked.

    Args:
        identity: at least 48 hex digits, as random as a hash.
        share: of traces whose spans are recorded, 0 to 1; which ones, their ids tell (as OpenTelemetry's
            TraceIdRatioBased does, so that others who sample by ratio take the same ones).
    """
    sampled = share >= 1.0 or (share > 0.0 and int(identity[16:32], 16) < int(share * 2**64))
    return TraceContext(identity[:32], identity[32:48], sampled)
