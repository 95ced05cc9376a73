"""One model server over HTTP: a session, one POST with what its answer means, and few short retries of a blip.

Only blips are retried here, within the request's own timeout; what lasts longer waits in the ledger. aiohttp, because a
request costs it a tenth of the client CPU that httpx takes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import aiohttp

from fhir_adapters.trace_context import outgoing
from pipelines.errors import ErrorClass, StepFailed
from pipelines.failures.policy import Pace, Trouble, pace_of
from pipelines.models.settings import Model

_T = TypeVar("_T")

_CONNECT = 5.0
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_MISCONFIGURED = {
    401: "the server wants another api_key",
    403: "the server does not let this api_key use the model",
    404: "the server knows neither this path nor this model",
}


class ModelServer:
    """Requests to one server.

    Args:
        config: where it is and how it is asked.
        pace: waits between tries.
    """

    def __init__(self, config: Model, pace: Pace | None = None) -> None:
        self._config = config
        self._pace = pace or pace_of(Trouble.MODEL_BLIP)
        self._session: aiohttp.ClientSession | None = None

    async def past_blips(self, ask: Callable[[int], Awaitable[_T]], timeout: float) -> _T:
        """`ask(1)`, and again where it met a blip; all tries together take no longer than `timeout` seconds.

        Raises:
            StepFailed: MODEL_TIMEOUT, or what the last try met.
        """
        try:
            async with asyncio.timeout(timeout):
                return await self._tries(ask)
        except TimeoutError:
            raise StepFailed(
                ErrorClass.MODEL_TIMEOUT, f"the model server did not answer within {timeout:g} s"
            ) from None

    async def _tries(self, ask: Callable[[int], Awaitable[_T]]) -> _T:
        for attempt in range(1, self._config.attempts + 1):
            try:
                return await ask(attempt)
            except StepFailed as failure:
                # a server that asks for a longer wait is left alone: the ledger waits cheaper than a worker
                last = attempt == self._config.attempts or (failure.retry_after or 0.0) > self._pace.cap
                if last or failure.error_class is not ErrorClass.MODEL_UNAVAILABLE:
                    raise
                await asyncio.sleep(self._pace.wait(attempt - 1, failure.retry_after))
        raise AssertionError("attempts is at least 1")

    async def post(self, url: str, body: bytes, request_id: str) -> tuple[bytes, float]:
        """POST JSON; the body of a 200, and the seconds it took; one try.

        Raises:
            StepFailed: of a class MODEL_UNAVAILABLE or MODEL_REJECTED; echoes nothing of either body.
        """
        headers = {"Content-Type": "application/json", "X-Request-Id": request_id, **outgoing()}
        return await self._ask("POST", url, body, headers)

    async def get(self, url: str) -> bytes:
        """The body of a 200; one try.

        Raises:
            StepFailed: as `post`.
        """
        content, _ = await self._ask("GET", url, None, {})
        return content

    async def _ask(self, method: str, url: str, body: bytes | None, headers: dict[str, str]) -> tuple[bytes, float]:
        started = time.monotonic()
        try:
            async with self._opened().request(method, url, data=body, headers=headers) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise unavailable(f"gave no answer ({type(error).__name__})") from None
        if response.status != 200:
            raise _failure(response.status, response.headers, self._config.served_name)
        return content, time.monotonic() - started

    async def close(self) -> None:
        """Give back the connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            secret = self._config.secret
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # `pipelines.models.admission` bounds what is in flight
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT),
                headers={"Authorization": f"Bearer {secret}"} if secret else {},
                trust_env=False,
            )
        return self._session


def unavailable(what: str, *, retry_after: float | None = None) -> StepFailed:
    """The server is not there, or is not what it should be: the event waits."""
    return StepFailed(ErrorClass.MODEL_UNAVAILABLE, f"the model server {what}", retry_after=retry_after)


def _failure(status: int, headers: Mapping[str, str], model: str) -> StepFailed:
    """What a status means. Wrong settings of ours are nobody's fault among the patients: their events wait."""
    if status in _MISCONFIGURED:
        return unavailable(f"answered {status}: {_MISCONFIGURED[status]}; see model.url, model.name ({model}), api_key")
    if status in _RETRIED or status >= 500:
        return unavailable(f"answered {status}", retry_after=_seconds(headers.get("Retry-After")))
    return StepFailed(
        ErrorClass.MODEL_REJECTED,
        f"the model server answered {status}: it does not take this request (too long for its context, or a schema "
        "or an input that it does not know)",
    )


def _seconds(retry_after: str | None) -> float | None:
    """The delay-seconds form of Retry-After (RFC 9110 10.2.3); model servers do not send the date form."""
    try:
        return max(float(retry_after or ""), 0.0)
    except ValueError:
        return None
