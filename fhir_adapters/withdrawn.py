"""The smallest valid R4 resource of a type, entered in error where the type can say so, and of no patient.

Read from fhir.resources' models: which elements a type requires, and which codes each of them takes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fhir_adapters.fhir_models import fields_of, model_of

_IN_ERROR = "entered-in-error"
_TEXT = "write fence"
#: Types that have this status in R4, where the models' lists of codes are cut short ("registered | preliminary | +").
_ALSO = frozenset({"DetectedIssue", "DiagnosticReport", "Observation", "RiskAssessment", "Task"})
#: Elements whose content is told by their type alone.
_BY_TYPE: dict[str, dict[str, Any]] = {
    "Reference": {"display": _TEXT},
    "CodeableConcept": {"text": _TEXT},
    "Identifier": {"value": _TEXT},
    "Attachment": {"title": _TEXT},
    "Annotation": {"text": _TEXT},
    "Coding": {"display": _TEXT},
}


def withdrawn(resource_type: str, recorded: datetime) -> dict[str, Any] | None:
    """The resource without id, or None for a type that R4 does not know.

    Args:
        resource_type: for example "Flag".
        recorded: what stands where the type requires a time (timezone-aware).
    """
    model = model_of(resource_type, "R4")
    if model is None:
        return None
    found = {"resourceType": resource_type, **_required(model, recorded)}
    if resource_type in _ALSO:
        found["status"] = _IN_ERROR
    return found


def _required(model: Any, recorded: datetime) -> dict[str, Any]:
    known = fields_of(model)
    found: dict[str, Any] = {}
    chosen: set[str] = set()
    for name, info in model.model_fields.items():
        told = info.json_schema_extra or {}
        codes = told.get("enum_values") or ()
        element = info.alias or name
        choice = told.get("one_of_many") if told.get("one_of_many_required") else None
        wanted = info.is_required() or told.get("element_required") or choice or _IN_ERROR in codes
        if element not in known or not wanted or choice in chosen:
            continue
        if choice:
            chosen.add(choice)
        value = _value(known[element], codes, str(info.annotation), recorded)
        found[element] = [value] if known[element].many else value
    return found


def _value(field: Any, codes: Any, annotation: str, recorded: datetime) -> Any:
    if field.kind == "element":
        return dict(_BY_TYPE.get(field.model.__name__) or _required(field.model, recorded))
    if codes:
        return _IN_ERROR if _IN_ERROR in codes else codes[0]
    if field.kind == "boolean":
        return False
    if field.kind == "number":
        return 1
    if "datetime" in annotation:
        return recorded.isoformat(timespec="milliseconds")
    if "date" in annotation:
        return recorded.date().isoformat()
    return "urn:careloom:fence" if any(kind in annotation for kind in ("Uri", "Url", "Canonical")) else _TEXT
