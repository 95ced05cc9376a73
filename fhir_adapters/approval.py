"""The Task that asks a person to decide on a draft (FHIR R4 Task, code `approve`), and how it is known again.

docs/review.md is the contract with whoever shows it to a person; `fhir_adapters.decision` reads what comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from fhir_adapters.patient import patient_of

#: Name of the Task among the drafts of one transaction; no draft may be called so.
APPROVE = "approve"
#: https://hl7.org/fhir/R4/codesystem-task-code.html
TASK_CODE = "http://hl7.org/fhir/CodeSystem/task-code"


def approval_task(
    drafts: Sequence[tuple[str, Mapping[str, Any]]], *, requester: str, description: str, asked_at: datetime
) -> dict[str, Any]:
    """The Task, without label and identity, which every draft is given alike.

    Args:
        drafts: reference and resource of each, at least one.
        requester: reference to the Device that made them.
        description: what the person is asked, in the house's language.
        asked_at: timezone-aware.
    """
    resources = [resource for _, resource in drafts]
    patient = _only(patient_of(resource) for resource in resources)
    encounter = _only(_encounter(resource) for resource in resources)
    return {
        "resourceType": "Task",
        "status": "requested",
        "intent": "proposal",
        "code": {"coding": [{"system": TASK_CODE, "code": APPROVE}]},
        "description": description,
        "focus": {"reference": drafts[0][0]},
        **({"for": {"reference": patient}} if patient else {}),
        **({"encounter": {"reference": encounter}} if encounter else {}),
        "authoredOn": asked_at.isoformat(timespec="milliseconds"),
        "requester": {"reference": requester},
        "input": [{"type": {"text": "draft"}, "valueReference": {"reference": url}} for url, _ in drafts],
    }


def asks_for_approval(resource: Mapping[str, Any]) -> bool:
    """Whether a resource is a Task with the code `approve`, whoever wrote it."""
    code = resource.get("code")
    codings = code.get("coding") if isinstance(code, dict) else None
    return (
        resource.get("resourceType") == "Task"
        and isinstance(codings, list)
        and any(isinstance(c, dict) and c.get("system") == TASK_CODE and c.get("code") == APPROVE for c in codings)
    )


def _only(found: Iterable[str | None]) -> str | None:
    """The one that all who name one agree on."""
    named = {one for one in found if one is not None}
    return named.pop() if len(named) == 1 else None


def _encounter(resource: Mapping[str, Any]) -> str | None:
    """ "Encounter/<id>" that a draft is of: its `encounter`, or a document's `context.encounter` (R4)."""
    context = resource.get("context")
    of_document = context.get("encounter") if isinstance(context, dict) else None
    node = resource.get("encounter") or (of_document[0] if isinstance(of_document, list) and of_document else None)
    reference = node.get("reference") if isinstance(node, dict) else None
    return reference if isinstance(reference, str) and reference.startswith("Encounter/") else None
