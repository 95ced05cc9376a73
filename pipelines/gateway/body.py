"""Reads a request's body: never more of it than the limit, never longer than the deadline."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from fhir_adapters.errors import TooLarge
from pipelines.gateway.errors import BodyTooSlow


async def read_body(request: Request, *, limit: int, timeout: float) -> bytes:
    """The body as it came over the wire, its content encoding still on it.

    Args:
        request: whose body is not read yet.
        limit: bytes; a Content-Length over it is refused before a byte is read.
        timeout: seconds for all of it.

    Raises:
        TooLarge: over the limit.
        BodyTooSlow: not there in time.
        starlette.requests.ClientDisconnect: the sender hung up.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
    except TimeoutError:
        raise BodyTooSlow(f"the body did not come within {timeout:g} s; send it again") from None
    return b"".join(chunks)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body is over the limit of {limit} bytes; send less at once")
