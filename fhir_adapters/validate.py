"""Validation of one resource: structure by fhir.resources (or plainly right), and the codes that it does not check.

A problem is a path and what kind of thing is wrong there, never a value: pydantic's own messages quote the input, and
so could the name of an element that FHIR does not know, which is therefore shown as `?`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import ValidationError

from fhir_adapters.bindings import CONCEPTS, codes_of
from fhir_adapters.event import FhirVersion
from fhir_adapters.fhir_models import model_of
from fhir_adapters.plainly_valid import plainly_valid
from fhir_adapters.resource_types import versions_of

MAX_PROBLEMS = 50
"""More are not listed: a wrong resource can have thousands."""

_Rule = TypeVar("_Rule")

#: pydantic and fhir.resources error types that are no plain wrong value -> http://hl7.org/fhir/issue-type.
_KINDS = {
    "missing": "required",
    "model_field_validation.missing": "required",
    "fhir-validation-missing-resource-type": "required",
    "fhir-validation-wrong-resource-type": "structure",
    "extra_forbidden": "structure",
    "list_type": "structure",
    "dict_type": "structure",
    "model_type": "structure",
    "model_attributes_type": "structure",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where.

    Attributes:
        path: FHIRPath-like, for example "Encounter.participant[2].period"; holds nothing of the body.
        kind: code of http://hl7.org/fhir/issue-type: required, structure, value, code-invalid, not-supported,
            too-costly.
    """

    path: str
    kind: str


def problems(resource: Mapping[str, Any], version: FhirVersion) -> tuple[Problem, ...]:
    """What is wrong with a parsed resource; empty where nothing is found.

    R4 is read with R4B's models, which do not differ for the types that both have in what patients' records use. A type
    that the version has and fhir.resources does not (some R4 types) passes with its codes unchecked.
    """
    kind = resource.get("resourceType")
    if not isinstance(kind, str):
        return (Problem("resourceType", "required"),)
    if version not in versions_of(kind):
        return (Problem("resourceType", "not-supported"),)
    return tuple(
        dict.fromkeys(
            (*_structure(resource, kind, version), *_codes(resource, kind, version), *_concepts(resource, kind))
        )
    )[:MAX_PROBLEMS]


def _structure(resource: Mapping[str, Any], kind: str, version: FhirVersion) -> tuple[Problem, ...]:
    model = model_of(kind, version)
    if model is None or plainly_valid(resource, version):
        return ()
    try:
        model.model_validate(dict(resource))
    except ValidationError as error:
        return tuple(
            Problem(_path(kind, each["loc"], each["type"]), _KINDS.get(each["type"], "value"))
            for each in error.errors(include_input=False, include_context=False, include_url=False)[:MAX_PROBLEMS]
        )
    except RecursionError:
        return (Problem(kind, "too-costly"),)
    except (KeyError, ValueError, TypeError, AttributeError, AssertionError):
        # fhir.resources raises these itself, for example KeyError for an unknown type inside a Bundle.
        return (Problem(kind, "structure"),)
    return ()


def _path(kind: str, location: tuple[int | str, ...], error_type: str) -> str:
    path = kind
    for i, part in enumerate(location):
        unknown = error_type == "extra_forbidden" and i == len(location) - 1
        if isinstance(part, int):
            path += f"[{part}]"
        elif unknown:
            path += ".?"
        elif part.isascii() and part.replace("_", "").isalnum():
            path += f".{part}"
    return path


def _codes(resource: Mapping[str, Any], kind: str, version: FhirVersion) -> Iterator[Problem]:
    for element, allowed in _codes_of(version).get(kind, ()):
        if element in resource:
            value = resource[element]
            if not isinstance(value, str) or value not in allowed:
                yield Problem(f"{kind}.{element}", "code-invalid")


def _concepts(resource: Mapping[str, Any], kind: str) -> Iterator[Problem]:
    for element, (system, allowed) in _CONCEPTS.get(kind, ()):
        concept = resource.get(element)
        if not isinstance(concept, dict) or not isinstance(concept.get("coding"), list):
            continue
        for i, coding in enumerate(concept["coding"]):
            code = coding.get("code") if isinstance(coding, dict) and coding.get("system") == system else ""
            if code != "" and not (isinstance(code, str) and code in allowed):
                yield Problem(f"{kind}.{element}.coding[{i}].code", "code-invalid")


def _by_kind(found: Mapping[tuple[str, str], _Rule]) -> dict[str, tuple[tuple[str, _Rule], ...]]:
    """kind -> (element, rule) of all its elements."""
    kinds = sorted({kind for kind, _ in found})
    return {kind: tuple((element, rule) for (k, element), rule in found.items() if k == kind) for kind in kinds}


_CONCEPTS = _by_kind(CONCEPTS)


@lru_cache(maxsize=3)
def _codes_of(version: FhirVersion) -> Mapping[str, tuple[tuple[str, frozenset[str]], ...]]:
    return _by_kind(codes_of(version))
