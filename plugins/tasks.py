"""A Task that asks a person to do something now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from plugins.drafting import trigger_source
from plugins.fhir_text import DEVICE, Line, clean, coded, instant, narrative, references
from plugins.scenario import Case, Text


def task(
    case: Case,
    patient: str,
    *,
    title: Text,
    code: str,
    shown: Sequence[Line],
    said: str,
    priority: str,
    within: timedelta,
) -> dict[str, Any]:
    """A requested Task about the triggering resource.

    Args:
        patient: "Patient/<id>".
        code: what is asked for, in the system `urn:careloom:task`.
        shown: the narrative.
        said: the description.
        priority: code of FHIR's request-priority.
        within: until when, from now.
    """
    name = title.in_(case.locale)
    focus = references(trigger_source(case))
    return {
        "resourceType": "Task",
        "text": narrative([(name, shown)], case.locale),
        "status": "requested",
        "intent": "proposal",
        "priority": priority,
        "code": coded(name, ("urn:careloom:task", code, None)),
        "description": clean(said, 2000),
        **({"focus": focus[0]} if focus else {}),
        "for": {"reference": patient},
        "authoredOn": instant(case.now),
        "requester": {"reference": DEVICE},
        "restriction": {"period": {"start": instant(case.now), "end": instant(case.now + within)}},
    }
