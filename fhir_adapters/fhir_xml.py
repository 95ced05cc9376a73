"""FHIR XML to FHIR JSON, with every value as it was written: 7.20 stays 7.20, an instant keeps its digits.

Rules: https://hl7.org/fhir/R4/json.html#xml. What is a list, a number or a nested resource is read from fhir.resources'
models; its own XML reader is not used because it turns values into Python ones (7.20 into 7.2, seven digits of a
second into six). A document type or entity is refused before the parser sees it.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from lxml import etree  # type: ignore[import-untyped]

from fhir_adapters.errors import MalformedJson, NotFhir
from fhir_adapters.event import FhirVersion
from fhir_adapters.fhir_models import Field, Kind, fields_of, model_of

_FHIR = "{http://hl7.org/fhir}"
_XHTML = "{http://www.w3.org/1999/xhtml}"
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def to_json(body: bytes, version: FhirVersion) -> bytes:
    """The resource in `body` as FHIR JSON.

    Raises:
        MalformedJson: not XML in UTF-8, or XML with a document type.
        NotFhir: XML that is no resource of `version`.
    """
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedJson("the body is not UTF-8") from None
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise MalformedJson("the XML has a document type or entities, which FHIR forbids; send it without")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise MalformedJson("the body is not well-formed XML in UTF-8") from None
    return msgspec.json.encode(_resource(root, version))


def _resource(node: Any, version: FhirVersion) -> dict[str, Any]:
    name = _local_name(node)
    model = model_of(name, version)
    if model is None:
        raise NotFhir(f"the XML holds an element where a resource of FHIR {version} was expected")
    return {"resourceType": name, **_element(node, model, version)}


def _element(node: Any, model: Any, version: FhirVersion) -> dict[str, Any]:
    fields = fields_of(model)
    out: dict[str, Any] = {}
    for name in ("id", "url"):
        if name in node.attrib:
            out[name] = node.attrib[name]
    for child in node:
        if child.tag == f"{_XHTML}div":
            etree.cleanup_namespaces(child)
            out["div"] = etree.tostring(child, encoding="unicode", with_tail=False)
            continue
        name = _local_name(child)
        field = fields.get(name)
        if field is None:
            raise NotFhir(f"the XML holds an element that {model.__name__} of FHIR {version} does not have")
        if field.kind in ("element", "resource"):
            value = _element(child, field.model, version) if field.kind == "element" else _inner(child, version)
            _put(out, name, value, field.many)
        else:
            _put_primitive(out, name, child, field, version)
    return out


def _inner(node: Any, version: FhirVersion) -> dict[str, Any]:
    if len(node) != 1:
        raise NotFhir("the XML holds a resource element without exactly one resource in it")
    return _resource(node[0], version)


def _put(out: dict[str, Any], name: str, value: Any, many: bool) -> None:
    if many:
        out.setdefault(name, []).append(value)
    elif name in out:
        raise NotFhir(f"the XML holds {name} twice where FHIR allows it once")
    else:
        out[name] = value


def _put_primitive(out: dict[str, Any], name: str, node: Any, field: Field, version: FhirVersion) -> None:
    raw = node.attrib.get("value")
    value = None if raw is None else _primitive(raw, field.kind, name)
    extension_model = _extension_model(version)
    extra: dict[str, Any] = {"id": node.attrib["id"]} if "id" in node.attrib else {}
    children = [_element(child, extension_model, version) for child in node]
    if children:
        extra["extension"] = children
    if not field.many:
        if value is not None:
            _put(out, name, value, many=False)
        if extra:
            _put(out, f"_{name}", extra, many=False)
        return
    values, extras = out.setdefault(name, []), out.get(f"_{name}")
    if extra and extras is None:
        extras = out[f"_{name}"] = [None] * len(values)
    values.append(value)
    if extras is not None:
        extras.append(extra or None)


def _primitive(raw: str, kind: Kind, name: str) -> Any:
    if kind == "string":
        return raw
    if kind == "boolean" and raw in ("true", "false"):
        return raw == "true"
    if kind == "number" and _NUMBER.fullmatch(raw):
        return msgspec.Raw(raw.encode())
    raise NotFhir(f"the XML holds a {name} that is not a {kind}")


def _local_name(node: Any) -> str:
    if not isinstance(node.tag, str) or not node.tag.startswith(_FHIR):
        raise NotFhir("the XML holds an element outside the namespace http://hl7.org/fhir")
    return node.tag[len(_FHIR) :]


def _extension_model(version: FhirVersion) -> Any:
    return fields_of(model_of("Basic", version))["extension"].model
