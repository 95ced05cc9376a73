"""A quick look that says yes only to what fhir.resources would take as well; everything else is left to fhir.resources.

fhir.resources builds a pydantic model of every element, at half a millisecond a resource. This walks the parsed JSON
along the same models' fields and answers one question: is every element known, of the right shape, and its value of a
form that nobody doubts? Where it is in doubt (an extension of a primitive, a leap day, a URL, a null, a name that the
model has in Python only, anything nested deep) it says no, which means "ask fhir.resources", never "wrong". The rules
are therefore narrower than those of the models, and tests/fhir_adapters/test_plainly_valid.py holds every yes to them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from fhir_adapters.event import FhirVersion
from fhir_adapters.fhir_models import fields_of, model_of

MAX_LEVELS = 16
"""Elements nested deeper are left to fhir.resources, which has a limit of its own (some 80 levels of extensions)."""

_DAY = r"[12][0-9]{3}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
_HOUR = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_MOMENT = rf"{_DAY}T{_HOUR}(?:Z|[+-](?:0[0-9]|1[0-3]):[0-5][0-9])"
_DATE = rf"[12][0-9]{{3}}(?:-(?:0[1-9]|1[0-2]))?|{_DAY}"

#: What says yes to a value by being true; a TypeError is a no.
_Test = Callable[[Any], object]


def _boolean(value: object) -> bool:
    return value is True or value is False


def _decimal(value: object) -> bool:
    return type(value) in (int, float) and -1e15 < value < 1e15  # type: ignore[operator]


def _whole(least: int) -> _Test:
    return lambda value: type(value) is int and least <= value <= 2**31 - 1


def _base64(value: str) -> bool:
    return len(value) % 4 == 0 and _BASE64(value) is not None


_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}").fullmatch

#: fhir.resources' name of a primitive type -> when a JSON value is plainly one. `str.strip` is true of a string with
#: anything but white space in it, and raises TypeError for what is none. Not here, so always in doubt: url, uuid,
#: integer64.
_PRIMITIVES: dict[str, _Test] = {
    "base64Binary": _base64,
    "boolean": _boolean,
    "canonical": str.strip,
    "code": re.compile(r"[!-~]+(?: [!-~]+)*").fullmatch,
    "date": re.compile(_DATE).fullmatch,
    "dateTime": re.compile(rf"{_DATE}|{_MOMENT}").fullmatch,
    "decimal": _decimal,
    "id": re.compile(r"[A-Za-z0-9.-]{1,64}").fullmatch,
    "instant": re.compile(_MOMENT).fullmatch,
    "integer": _whole(-(2**31)),
    "markdown": str.strip,
    "oid": re.compile(r"urn:oid:[0-2](?:\.(?:0|[1-9][0-9]*))+").fullmatch,
    "positiveInt": _whole(1),
    "string": str.strip,
    "time": re.compile(_HOUR).fullmatch,
    "unsignedInt": _whole(0),
    "uri": str.strip,
    "xhtml": str.strip,
}


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a model asks of its JSON object.

    Attributes:
        elements: name -> whether it is a list; the test of a primitive, or None; the model of an element, or None for
            any resource.
        required: names that must be there.
        choices: name -> the choice (`value[x]`) that it is one of.
        required_choices: of which one must be there.
    """

    elements: Mapping[str, tuple[bool, _Test | None, Any]]
    required: frozenset[str]
    choices: Mapping[str, str]
    required_choices: frozenset[str]


def plainly_valid(resource: Mapping[str, Any], version: FhirVersion) -> bool:
    """Whether fhir.resources would take `resource` without doubt; False says only that it has to be asked.

    Args:
        resource: as a JSON reader gives it: dict, list, str, int, float, bool, None.
        version: of FHIR; R4 is read with R4B's models.
    """
    model = _model_behind(resource, version)
    level: list[tuple[Any, Any]] = [(resource, model)]
    try:
        for _ in range(MAX_LEVELS):
            below: list[tuple[Any, Any]] = []
            for node, its_model in level:
                if its_model is None:
                    its_model = _model_behind(node, version)  # a resource says itself what it is
                if its_model is None or not _plain(node, _shape_of(its_model), below):
                    return False
            if not below:
                return True
            level = below
    except TypeError:  # a value of a type that its test does not look at
        return False
    return False


def _model_behind(node: Any, version: FhirVersion) -> Any:
    kind = node.get("resourceType") if type(node) is dict else None
    return model_of(kind, version) if type(kind) is str else None


def _plain(node: Any, shape: _Shape, below: list[tuple[Any, Any]]) -> bool:
    """Look at one object; the elements in it that are objects themselves are added to `below`."""
    if type(node) is not dict or not node:
        return False
    elements = shape.elements
    for name, value in node.items():
        element = elements.get(name)
        if element is None:
            return False
        many, test, model = element
        if many:
            if type(value) is not list or not value:
                return False
            if test is None:
                below += [(one, model) for one in value]
            elif not all(map(test, value)):
                return False
        elif test is None:
            below.append((value, model))
        elif not test(value):
            return False
    return shape.required <= node.keys() and (not shape.choices or _one_of_each(node, shape))


def _one_of_each(node: Mapping[str, Any], shape: _Shape) -> bool:
    made = [shape.choices[name] for name in node if name in shape.choices]
    return len(made) == len(set(made)) and shape.required_choices.issubset(made)


@lru_cache(maxsize=2048)
def _shape_of(model: Any) -> _Shape:
    elements: dict[str, tuple[bool, _Test | None, Any]] = {}
    for name, field in fields_of(model).items():
        if field.kind in ("element", "resource"):
            elements[name] = (field.many, None, field.model if field.kind == "element" else None)
        elif (test := _PRIMITIVES.get(field.primitive)) is not None:
            elements[name] = (field.many, test, None)
    if model.has_resource_base():
        elements["resourceType"] = (False, {model.get_resource_type()}.__contains__, None)
    names = {key: info.alias or key for key, info in model.model_fields.items()}
    empty = model.model_construct()
    groups = empty.get_one_of_many_fields()
    return _Shape(
        elements,
        frozenset(names[key] for key, info in model.model_fields.items() if info.is_required())
        | {name for name, _ in empty.get_required_fields()},
        {names[key]: group for group, keys in groups.items() for key in keys},
        frozenset(
            group
            for group, keys in groups.items()
            if model.model_fields[keys[0]].json_schema_extra["one_of_many_required"]
        ),
    )
