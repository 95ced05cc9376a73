"""fhir.resources' model of a type in a FHIR version, imported when first asked for, and what its elements are.

R4 is read with R4B's models: there are none for R4, and of 320 R4 examples 293 pass (the rest are wrong, or of types
that R4B lacks).
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal

from fhir_adapters.event import FhirVersion
from fhir_adapters.resource_types import versions_of

Kind = Literal["number", "boolean", "string", "element", "resource"]


@dataclass(frozen=True, slots=True)
class Field:
    """One element of a type.

    Attributes:
        kind: what it is in FHIR JSON ("element": an object with elements of its own).
        many: whether it is a list.
        model: of an "element".
        primitive: FHIR's name of a primitive type; "" of an element or a resource.
    """

    kind: Kind
    many: bool
    model: Any = None
    primitive: str = ""


_PACKAGES: dict[FhirVersion, str] = {"R4": "fhir.resources.R4B", "R4B": "fhir.resources.R4B", "R5": "fhir.resources"}


@lru_cache(maxsize=512)
def model_of(resource_type: str, version: FhirVersion) -> Any | None:
    """The pydantic model class; None where `version` does not know the type or fhir.resources has no model of it."""
    if version not in versions_of(resource_type):
        return None
    try:
        module = import_module(f"{_PACKAGES[version]}.{resource_type.lower()}")
    except ModuleNotFoundError:
        return None
    return getattr(module, resource_type, None)


@lru_cache(maxsize=2048)
def fields_of(model: Any) -> dict[str, Field]:
    """The elements of a model by their FHIR names."""
    fields = {}
    for name, info in model.model_fields.items():
        if not (info.json_schema_extra or {}).get("element_property", True) or name.endswith("__ext"):
            continue
        fields[info.alias or name] = _field(info.annotation, list(info.metadata))
    return fields


def _field(annotation: Any, metadata: list[Any]) -> Field:
    many, leaves = _leaves(annotation, metadata)
    for leaf in leaves:
        if hasattr(leaf, "get_model_klass"):
            model = leaf.get_model_klass()
            kind: Kind = "resource" if model.__name__ == "Resource" else "element"
            return Field(kind, many, model)
    names = {getattr(leaf, "__name__", type(leaf).__name__) for leaf in leaves}
    named = [leaf.__visit_name__ for leaf in leaves if hasattr(leaf, "__visit_name__")]
    if "bool" in names:
        return Field("boolean", many, primitive="boolean")
    primitive = named[0] if len(named) == 1 else "uuid" if "UUID" in names else ""
    if "Integer64" in names:  # https://hl7.org/fhir/R5/json.html#primitive: a string in JSON
        return Field("string", many, primitive=primitive)
    return Field("number" if names & {"int", "Decimal"} else "string", many, primitive=primitive)


def _leaves(annotation: Any, metadata: list[Any]) -> tuple[bool, list[Any]]:
    origin = typing.get_origin(annotation)
    if origin is None:
        return False, [annotation, *metadata]
    many, leaves = origin is list, list(metadata)
    if origin is typing.Annotated:
        leaves += annotation.__metadata__
    for argument in typing.get_args(annotation)[: 1 if origin is typing.Annotated else None]:
        inner_many, inner = _leaves(argument, [])
        many, leaves = many or inner_many, leaves + inner
    return many, leaves
