"""Output models as JSON schema: inlined and minimal for the model server, and checked for bounds at load time."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from plugins.errors import ScenarioRefused
from plugins.scenario import Statement

#: Keywords that xgrammar enforces and that a scenario's answer may use.
_KEPT = frozenset(
    {
        "type", "properties", "required", "additionalProperties", "items", "enum", "const", "anyOf",
        "minItems", "maxItems", "minLength", "maxLength", "minimum", "maximum",
    }
)  # fmt: skip


def is_statement(annotation: object) -> bool:
    """Whether a type annotation is a Statement model."""
    return isinstance(annotation, type) and issubclass(annotation, Statement)


def inlined(model: type[BaseModel], *, sources: Sequence[str], max_sources: int) -> dict[str, Any]:
    """The schema of `model` without references; each statement may cite up to `max_sources` of `sources`."""
    whole = _schema(model)
    return _Inliner(whole.get("$defs", {}), _sources_schema(sources, max_sources)).node(whole)


def check_bounded(model: type[BaseModel]) -> None:
    """Refuse an output model with which a model server could go on for ever, or say what nobody can cite.

    Raises:
        ScenarioRefused: a string without maxLength, a list without max_length, a number without bounds, a free-form
            object, a recursive model, a keyword that constrained decoding does not enforce, extra keys allowed, or a
            Statement that is neither in a list nor optional (and so could not be cut).
    """
    for name, annotation in _fields(model):
        if is_statement(annotation):
            raise ScenarioRefused(f"{name}: a Statement must be optional or stand in a list, so that it can be cut")
    whole = _schema(model)
    try:
        schema = _Inliner(whole.get("$defs", {}), {"const": "R1"}, strict=True).node(whole)
    except RecursionError:
        raise ScenarioRefused(f"{model.__name__} is recursive; an answer must have a fixed depth") from None
    for place, node in _walk(schema, model.__name__):
        problem = _unbounded(node)
        if problem:
            raise ScenarioRefused(f"{place}: {problem}")


@lru_cache(maxsize=256)
def _schema(model: type[BaseModel]) -> Mapping[str, Any]:
    """As pydantic makes it, anew at every call: three quarters of what a prompt's schema costs. Read only."""
    return MappingProxyType(model.model_json_schema())


def _sources_schema(sources: Sequence[str], max_sources: int) -> dict[str, Any]:
    most = min(max_sources, len(sources))
    return {"type": "array", "items": {"enum": list(sources)}, "minItems": 1, "maxItems": most} if sources else {}


class _Inliner:
    """Copies a pydantic schema, following `$ref`, keeping what xgrammar knows."""

    def __init__(self, definitions: Mapping[str, Any], sources: dict[str, Any], *, strict: bool = False) -> None:
        self._definitions = definitions
        self._sources = sources
        self._strict = strict

    def node(self, schema: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
        if depth > 12:
            raise RecursionError
        if "$ref" in schema:
            return self.node(self._definitions[schema["$ref"].rsplit("/", 1)[-1]], depth + 1)
        if self._strict and (unknown := set(schema) - _KEPT - {"title", "description", "default", "$defs"}):
            raise ScenarioRefused(f"{', '.join(sorted(unknown))}: not enforced by constrained decoding; leave it out")
        out = {key: value for key, value in schema.items() if key in _KEPT}
        if "properties" in out:
            out["properties"] = {name: self.node(sub, depth + 1) for name, sub in out["properties"].items()}
            out["required"] = list(out["properties"])
            self._bind_sources(out)
        if "items" in out:
            out["items"] = self.node(out["items"], depth + 1)
            if not self._sources and "sources" in out["items"].get("properties", {}):
                return {"type": "array", "items": out["items"], "minItems": 0, "maxItems": 0}
        if "anyOf" in out:
            out["anyOf"] = [self.node(option, depth + 1) for option in out["anyOf"]]
        return out

    def _bind_sources(self, out: dict[str, Any]) -> None:
        if {"text", "sources"} <= set(out["properties"]):
            out["properties"]["sources"] = self._sources or {"enum": [[]]}


def _fields(model: type[BaseModel], seen: frozenset[type] = frozenset()) -> Iterator[tuple[str, object]]:
    """Every (place, annotation) of a model and of the models inside it."""
    if model in seen:
        return
    for name, info in model.model_fields.items():
        yield f"{model.__name__}.{name}", info.annotation
        for inner in _models(info.annotation):
            yield from _fields(inner, seen | {model})


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (list, tuple, Union, types.UnionType, Annotated):
        for part in get_args(annotation):
            yield from _models(part)


def _walk(schema: Mapping[str, Any], place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield place, schema
    for name, sub in schema.get("properties", {}).items():
        yield from _walk(sub, f"{place}.{name}")
    if isinstance(schema.get("items"), Mapping):
        yield from _walk(schema["items"], f"{place}[]")
    for option in schema.get("anyOf", ()):
        yield from _walk(option, place)


def _unbounded(node: Mapping[str, Any]) -> str | None:
    """What is unbounded about one schema node, with the remedy; None where it is bounded."""
    if "enum" in node or "const" in node or "anyOf" in node:
        return None
    needs = {
        "string": (("maxLength",), "an unbounded string; give it Field(max_length=...) or a Literal"),
        "array": (("maxItems", "items"), "an unbounded list; give it Field(max_length=...)"),
        "integer": (("minimum", "maximum"), "an unbounded number; give it Field(ge=..., le=...)"),
        "number": (("minimum", "maximum"), "an unbounded number; give it Field(ge=..., le=...)"),
        "boolean": ((), ""),
        "null": ((), ""),
    }
    if node.get("type") == "object":
        closed = node.get("additionalProperties") is False and node.get("properties")
        return None if closed else 'open to any key; declare its fields and set extra="forbid"'
    keywords, remedy = needs.get(str(node.get("type")), (("type",), "of no single type; annotate it"))
    return None if all(keyword in node for keyword in keywords) else remedy
