"""Tells careloom's own drafts from what happens in the hospital, so that writing a draft never starts another.

Everything that careloom writes carries the AIAST label (v3-ObservationValue, "Artificial Intelligence asserted"). A
notification of such a resource is no event, with one exception: a Task that a person has moved on is that person's
decision, and comes in like any other event, though the label is still on it (docs/review.md). A write fence is nobody's
decision.
"""

from __future__ import annotations

from typing import Any

import orjson

from fhir_adapters.event import ClinicalEvent
from fhir_adapters.write_fence import is_fence

_LABEL = "AIAST"
_SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
_UNDECIDED = ("draft", "requested")


def is_own_draft(event: ClinicalEvent) -> bool:
    """Whether the event only says that careloom wrote something."""
    if _LABEL.encode() not in event.body:  # the cheap test: next to no event goes further
        return False
    resource = orjson.loads(event.body)
    if not _labelled(resource):
        return False
    if is_fence(resource):
        return True
    return not (event.resource_type == "Task" and resource.get("status") not in _UNDECIDED)


def _labelled(resource: dict[str, Any]) -> bool:
    meta = resource.get("meta")
    security = meta.get("security") if isinstance(meta, dict) else None
    return isinstance(security, list) and any(
        isinstance(coding, dict) and coding.get("system") == _SYSTEM and coding.get("code") == _LABEL
        for coding in security
    )
