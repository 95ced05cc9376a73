"""OperationOutcome: how a refusal, a failure or a list of problems is told over FHIR (http://hl7.org/fhir/R4/operationoutcome.html)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fhir_adapters.errors import Refused
from fhir_adapters.validate import Problem


def outcome(severity: str, code: str, diagnostics: str) -> dict[str, Any]:
    """One issue.

    Args:
        severity: fatal, error, warning or information.
        code: http://hl7.org/fhir/issue-type.
        diagnostics: text for people; must hold nothing of a body.
    """
    return {
        "resourceType": "OperationOutcome",
        "issue": [{"severity": severity, "code": code, "diagnostics": diagnostics}],
    }


def of_refusal(error: Refused) -> dict[str, Any]:
    """What a sender is told when its request is refused; the HTTP status is `error.status`."""
    return outcome("error", error.issue_code, str(error))


def of_problems(problems: Iterable[Problem]) -> dict[str, Any]:
    """What a sender is told when a resource is not valid: one issue a problem, with its path; at least one problem."""
    return {
        "resourceType": "OperationOutcome",
        "issue": [
            {
                "severity": "error",
                "code": problem.kind,
                "diagnostics": f"{problem.path}: {_REMEDY.get(problem.kind, 'is not valid')}",
                "expression": [problem.path],
            }
            for problem in problems
        ],
    }


_REMEDY = {
    "required": "is missing",
    "structure": "is not what FHIR allows here",
    "value": "has a value that its type does not allow",
    "code-invalid": "has a code outside its required value set",
    "not-supported": "is no resource type of this FHIR version",
    "too-costly": "nests too deep to be validated",
}
