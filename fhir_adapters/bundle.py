"""A Bundle's entries, each with the bytes of its resource as they came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_adapters.errors import NotFhir
from fhir_adapters.references import Literal, literal, name_of
from fhir_adapters.strict_json import bundle_resources


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    Attributes:
        where: "Bundle.entry[3]", for messages.
        full_url: or None.
        resource: parsed; None where the entry has none.
        body: the resource's bytes exactly as received; b"" where the entry has none.
        method: request.method, or None.
        url: request.url, or None.
        etag: response.etag, or None.
        last_modified: response.lastModified, or None.
    """

    where: str
    full_url: str | None
    resource: Mapping[str, Any] | None
    body: bytes
    method: str | None
    url: str | None
    etag: str | None
    last_modified: str | None

    @property
    def target(self) -> Literal | None:
        """What the entry is about: its request's url, its fullUrl or its resource, the first that says so."""
        return literal(self.url) or literal(self.full_url) or self.own

    @property
    def own(self) -> Literal | None:
        """ "Type/id" of the resource inside; None where there is none or it has no id."""
        return name_of(self.resource) if self.resource is not None else None


def entries(bundle: Mapping[str, Any], body: bytes) -> tuple[Entry, ...]:
    """The entries of a Bundle.

    Args:
        bundle: `body` parsed by `strict_json.parse`.
        body: the Bundle's bytes.

    Raises:
        NotFhir: an entry, a resource, a request or a response is not what the Bundle's structure asks for.
    """
    listed = bundle.get("entry", [])
    bodies = bundle_resources(body)
    pairs = zip(listed, bodies, strict=True)
    return tuple(_entry(f"Bundle.entry[{i}]", node, raw or b"") for i, (node, raw) in enumerate(pairs))


def bases_and_aliases(found: Sequence[Entry]) -> tuple[frozenset[str], dict[str, str]]:
    """The base URLs in the entries' fullUrls, and which "Type/id" each fullUrl stands for."""
    bases: set[str] = set()
    aliases: dict[str, str] = {}
    for entry in found:
        own = entry.own
        if entry.full_url is None or own is None:
            continue
        aliases[entry.full_url] = own.relative
        url = literal(entry.full_url)
        if url is not None and url.base is not None and url.relative == own.relative:
            bases.add(url.base)
    return frozenset(bases), aliases


def _entry(where: str, node: Mapping[str, Any], body: bytes) -> Entry:
    resource = node.get("resource")
    if "resource" in node and not isinstance(resource, dict):
        raise NotFhir(f"{where}.resource: must be an object")
    request, response = _object(node, "request", where), _object(node, "response", where)
    return Entry(
        where=where,
        full_url=_text(node, "fullUrl", where),
        resource=resource,
        body=body,
        method=_text(request, "method", f"{where}.request"),
        url=_text(request, "url", f"{where}.request"),
        etag=_text(response, "etag", f"{where}.response"),
        last_modified=_text(response, "lastModified", f"{where}.response"),
    )


def _object(node: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    value = node.get(name, {})
    if not isinstance(value, dict):
        raise NotFhir(f"{where}.{name}: must be an object")
    return value


def _text(node: Mapping[str, Any], name: str, where: str) -> str | None:
    value = node.get(name)
    if value is not None and not isinstance(value, str):
        raise NotFhir(f"{where}.{name}: must be a string")
    return value
