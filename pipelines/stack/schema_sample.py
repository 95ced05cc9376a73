"""The least JSON value that a JSON Schema allows: what the stand-in model answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORD = "stand-in"
_FORMATS = {
    "date": "1970-01-01",
    "date-time": "1970-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "uri": "urn:stand-in",
}
#: Deeper schemas (a recursive one whose recursion is required) have no least value.
_DEEPEST = 50


class UnsupportedSchema(Exception):
    """The schema asks for something that cannot be made up here; the message names the keyword."""


def least(schema: Mapping[str, Any]) -> Any:
    """A value that `schema` allows: first of an enum, shortest list, required members only, "stand-in" for a text.

    Raises:
        UnsupportedSchema: a keyword that is not known here, such as `pattern`.
    """
    return _value(schema, schema, 0)


def _value(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    if depth > _DEEPEST:
        raise UnsupportedSchema("the schema demands itself without end")
    if "$ref" in schema:
        return _value(_referred(str(schema["$ref"]), root), root, depth + 1)
    for keyword in ("const", "enum"):
        if keyword in schema:
            return schema[keyword] if keyword == "const" else schema[keyword][0]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if alternatives := schema.get(keyword):
            if keyword == "allOf" and len(alternatives) > 1:
                raise UnsupportedSchema("allOf of several schemas")
            return _value(alternatives[0], root, depth + 1)
    return _typed(schema, root, depth)


def _typed(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "null")
    match kind if isinstance(kind, str) else kind[0]:
        case "object":
            members = schema.get("properties", {})
            return {name: _value(members.get(name, {}), root, depth + 1) for name in schema.get("required", ())}
        case "array":
            return [_value(schema.get("items", {}), root, depth + 1) for _ in range(schema.get("minItems", 0))]
        case "string":
            return _text(schema)
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return False
        case "null":
            return None
        case unknown:
            raise UnsupportedSchema(f"type {unknown!r}")


def _text(schema: Mapping[str, Any]) -> str:
    if "pattern" in schema:
        raise UnsupportedSchema("pattern")
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    text = WORD
    while len(text) < schema.get("minLength", 0):
        text += f" {WORD}"
    return text[: schema["maxLength"]] if "maxLength" in schema else text


def _number(schema: Mapping[str, Any]) -> int | float:
    least_allowed = schema.get("minimum", schema.get("exclusiveMinimum"))
    if least_allowed is None:
        return min(0, schema["maximum"]) if "maximum" in schema else 0
    number: int | float = least_allowed if "minimum" in schema else least_allowed + 1
    return number


def _referred(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = root
    for key in reference.removeprefix("#/").split("/"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not reference.startswith("#/") or not isinstance(found, Mapping):
        raise UnsupportedSchema(f"$ref {reference!r}")
    return found
