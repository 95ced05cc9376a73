"""A client of any FHIR R4 server over httpx: read, search, transaction, conditional create and update.

Its errors hold method, type, status and error codes; never a URL's parameters, an answer's text or a resource. It does
not retry unless told: retries live in one layer, and that is not this one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from fhir_adapters.errors import FhirRejected, FhirUnavailable
from fhir_adapters.fhir_answer import (
    Found,
    Reading,
    Saved,
    error_of,
    matches_in,
    next_link,
    reading_in,
    resource_in,
    saved_in,
)
from fhir_adapters.http_transport import AiohttpTransport
from fhir_adapters.references import literal
from fhir_adapters.trace_context import outgoing

__all__ = ["FHIR_JSON", "FhirClient", "Found", "Reading", "Retry", "Saved"]

FHIR_JSON = "application/fhir+json"

# httpx writes whole URLs at INFO and httpcore headers at DEBUG: search values and tokens do not belong in a log.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_RANDOM = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class Retry:
    """Full-jitter retry of reads and searches that got no answer, 429 or 5xx.

    Attributes:
        attempts: tries in all.
        base: seconds; the n-th wait is random between 0 and base * 2**n.
        cap: seconds that a wait never exceeds, Retry-After included.
    """

    attempts: int
    base: float = 0.5
    cap: float = 10.0


class FhirClient:
    """One FHIR server. Use it as an async context manager, or call `aclose`.

    Args:
        base_url: FHIR base.
        token: bearer token, or None.
        timeout: seconds for each of connecting, sending and waiting for bytes.
        retry: of reads and searches; None for no retry.
        transport: httpx transport, for tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: str | None = None,
        timeout: float = 30.0,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self._headers = {"Accept": FHIR_JSON}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._retry = retry or Retry(attempts=1)
        self._extensions = {"timeout": httpx.Timeout(timeout).as_dict()}
        self._transport = transport or AiohttpTransport()

    async def __aenter__(self) -> FhirClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def ping(self) -> str:
        """The server's FHIR version, for example "4.0.1", from its capability statement.

        Raises:
            FhirServerError: no answer, or none that is FHIR.
        """
        answer = await self._get("CapabilityStatement", "/metadata", {"_elements": "fhirVersion"})
        return str(resource_in(answer, "CapabilityStatement").get("fhirVersion", "unknown"))

    async def read(self, resource_type: str, resource_id: str) -> Reading:
        """The current version of a resource.

        Raises:
            FhirNotFound: there is none, or it was deleted.
            FhirServerError: any other failure.
        """
        return reading_in(await self._get(resource_type, _path(resource_type, resource_id)), resource_type)

    async def vread(self, resource_type: str, resource_id: str, version: str) -> Reading:
        """One version of a resource; raises as `read` does."""
        path = _path(resource_type, resource_id, version)
        return reading_in(await self._get(resource_type, path), resource_type)

    async def search(
        self, resource_type: str, params: Mapping[str, str] | Sequence[tuple[str, str]] = (), *, cap: int = 1000
    ) -> Found:
        """What a search finds, over all its pages, at most `cap` resources.

        The server is told not to answer from a cache (HAPI otherwise repeats a search for a minute).

        Raises:
            FhirServerError: a page could not be had; a partial result is never returned as if it were whole.
        """
        found: list[Reading] = []
        pairs = tuple(params.items() if isinstance(params, Mapping) else params)
        path, query = f"/{_type(resource_type)}", httpx.QueryParams(pairs)
        while True:
            answer = await self._get(resource_type, path, query, fresh=True)
            bundle = resource_in(answer, resource_type)
            found.extend(matches_in(bundle, answer.content, resource_type))
            following = next_link(bundle)
            if len(found) > cap or (following is not None and len(found) == cap):
                return Found(tuple(found[:cap]), truncated=True)
            if following is None:
                return Found(tuple(found), truncated=False)
            path, query = self._own_path(following, resource_type)

    async def transaction(self, bundle: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a transaction (or batch) Bundle.

        Raises:
            FhirConflict: somebody else was there first, nothing was written; HAPI says so to all but one of several
                concurrent transactions with the same conditions.
            FhirServerError: any other failure; after FhirUnavailable it may have been written all the same.
        """
        return resource_in(await self._send("POST", "Bundle", "", bundle), "Bundle")

    async def create(self, resource: Mapping[str, Any], *, if_none_exist: str | None = None) -> Saved:
        """Create a resource, or recognise the one that `if_none_exist` (a query string) finds.

        Raises:
            FhirConflict: the condition matched several, or another writer was faster.
            FhirServerError: any other failure.
        """
        kind = _type(resource.get("resourceType"))
        headers = {"If-None-Exist": if_none_exist} if if_none_exist else {}
        answer = await self._send("POST", kind, f"/{kind}", resource, headers)
        return saved_in(answer, kind, created=answer.status_code == httpx.codes.CREATED)

    async def update(self, resource: Mapping[str, Any], *, if_match: str | None = None) -> Saved:
        """Put a resource with its id in place, if its version is still `if_match`.

        Raises:
            FhirConflict: it is not (HAPI answers 409, others 412).
            FhirServerError: any other failure.
        """
        kind = _type(resource.get("resourceType"))
        headers = {"If-Match": f'W/"{if_match}"'} if if_match is not None else {}
        answer = await self._send("PUT", kind, _path(kind, str(resource.get("id"))), resource, headers)
        return saved_in(answer, kind, created=answer.status_code == httpx.codes.CREATED)

    async def _get(
        self,
        kind: str,
        path: str,
        params: Mapping[str, str] | httpx.QueryParams | None = None,
        *,
        fresh: bool = False,
    ) -> httpx.Response:
        headers = {"Cache-Control": "no-cache"} if fresh else {}
        for attempt in range(1, self._retry.attempts + 1):
            try:
                return await self._request("GET", kind, path, params=params, headers=headers)
            except FhirUnavailable as error:
                if attempt >= self._retry.attempts:
                    raise
                jitter = _RANDOM.uniform(0, self._retry.base * 2**attempt)
                await asyncio.sleep(min(self._retry.cap, max(jitter, error.retry_after or 0.0)))
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _send(
        self,
        method: str,
        kind: str,
        path: str,
        resource: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        sent = {"Content-Type": FHIR_JSON, **(headers or {})}
        return await self._request(method, kind, path, content=orjson.dumps(resource), headers=sent)

    async def _request(self, method: str, kind: str, path: str, **options: Any) -> httpx.Response:
        headers = {**self._headers, **options.pop("headers", {}), **outgoing()}
        # straight to the transport: cookies, redirects and hooks of httpx.AsyncClient have no use here, and were a
        # third of a request's CPU
        request = httpx.Request(method, self.base_url + path, headers=headers, extensions=self._extensions, **options)
        try:
            answer = await self._transport.handle_async_request(request)
            await answer.aread()
        except httpx.HTTPError as error:
            raise FhirUnavailable(f"{method} {kind}: no answer from the FHIR server ({type(error).__name__})") from None
        if not answer.is_success:
            raise error_of(method, kind, answer)
        return answer

    def _own_path(self, link: str, kind: str) -> tuple[str, httpx.QueryParams]:
        """A next link as path and query at our own base URL: the token goes nowhere else, whatever the link's host."""
        there, own = urlsplit(link), urlsplit(self.base_url)
        path = there.path.rstrip("/")
        if path != own.path.rstrip("/") and not path.startswith(f"{own.path.rstrip('/')}/"):
            raise FhirRejected(f"GET {kind}: the next page of the search is not below the server's base URL")
        return path[len(own.path.rstrip("/")) :], httpx.QueryParams(there.query)


def _type(resource_type: object) -> str:
    if isinstance(resource_type, str) and resource_type.isascii() and resource_type.isalpha():
        return resource_type
    raise ValueError("a resource type is a word of letters, for example Patient")


def _path(resource_type: str, resource_id: str, version: str | None = None) -> str:
    text = f"{_type(resource_type)}/{resource_id}" + (f"/_history/{version}" if version is not None else "")
    if literal(text) is None:
        raise ValueError(f"{resource_type}: the id or version is no FHIR id")
    return f"/{text}"
