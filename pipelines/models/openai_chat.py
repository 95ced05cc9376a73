"""Any OpenAI-compatible chat server (vLLM first of all): one session, a bound on requests in flight, few short retries.

Only blips are retried here, within the request's own timeout; what lasts longer waits in the ledger. aiohttp, because a
request costs it a tenth of the client CPU that httpx takes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

from pipelines.config import Model
from pipelines.errors import ErrorClass, StepFailed
from pipelines.models.base import ChatAnswer, ChatRequest

#: Seconds before the second try; doubles with each, with full jitter.
BACKOFF = 0.25
#: A server that asks for a longer wait is left alone: the ledger waits cheaper than a worker.
LONGEST_WAIT = 5.0

_CONNECT = 5.0
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_MISCONFIGURED = {
    401: "the server wants another api_key",
    403: "the server does not let this api_key use the model",
    404: "the server knows neither this path nor this model",
}


class OpenAIChat:
    """A `ModelBackend` over `POST <url>/chat/completions`.

    Args:
        config: where the server is and how it is asked.
        backoff: seconds before the second try.
    """

    def __init__(self, config: Model, *, backoff: float = BACKOFF) -> None:
        self._config = config
        self._backoff = backoff
        self._url = f"{config.url.rstrip('/')}/chat/completions"
        self._slots = asyncio.Semaphore(config.max_in_flight)
        self._session: aiohttp.ClientSession | None = None
        self._takes_priority: bool | None = None

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """See `ModelBackend.chat`. Waiting for a slot does not count against the request's timeout."""
        async with self._slots:
            try:
                async with asyncio.timeout(request.timeout):
                    return await self._with_retries(request)
            except TimeoutError:
                raise StepFailed(
                    ErrorClass.MODEL_TIMEOUT, f"the model server did not answer within {request.timeout:g} s"
                ) from None

    async def close(self) -> None:
        """Give back the connections."""
        if self._session is not None:
            await self._session.close()

    async def _with_retries(self, request: ChatRequest) -> ChatAnswer:
        for attempt in range(1, self._config.attempts + 1):
            try:
                return await self._asked(request, attempt)
            except StepFailed as failure:
                asked_for = failure.retry_after or 0.0
                last = attempt == self._config.attempts or asked_for > LONGEST_WAIT
                if last or failure.error_class is not ErrorClass.MODEL_UNAVAILABLE:
                    raise
                jittered = random.uniform(0, min(LONGEST_WAIT, self._backoff * 2.0 ** (attempt - 1)))  # noqa: S311
                await asyncio.sleep(max(jittered, asked_for))
        raise AssertionError("attempts is at least 1")

    async def _asked(self, request: ChatRequest, attempt: int) -> ChatAnswer:
        """One try; a server that refuses our priority is asked without it.

        vLLM answers 400 to a priority when it does not schedule by priority, as a strict server does to an unknown
        field. Whichever it is shows itself once, so no configuration is needed.
        """
        with_priority = request.priority != 0 and self._takes_priority is not False
        try:
            answer = await self._post(request, attempt, with_priority=with_priority)
        except StepFailed as failure:
            refused = failure.error_class is ErrorClass.MODEL_REJECTED
            if not (refused and with_priority and self._takes_priority is None):
                raise
            answer = await self._post(request, attempt, with_priority=False)
            self._takes_priority = False
            return answer
        if with_priority:
            self._takes_priority = True
        return answer

    async def _post(self, request: ChatRequest, attempt: int, *, with_priority: bool) -> ChatAnswer:
        body = orjson.dumps(_body(self._config.name, request, with_priority=with_priority))
        headers = {"Content-Type": "application/json", "X-Request-Id": f"{request.request_id}-{attempt}"}
        started = time.monotonic()
        try:
            async with self._opened().post(self._url, data=body, headers=headers) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise _unavailable(f"gave no answer ({type(error).__name__})") from None
        if response.status != 200:
            raise _failure(response.status, response.headers, self._config.name)
        return _answer(content, time.monotonic() - started)

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            key = self._config.api_key
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._config.max_in_flight),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT),
                headers={"Authorization": f"Bearer {key.get_secret_value()}"} if key else {},
                trust_env=False,
            )
        return self._session


def _body(model: str, request: ChatRequest, *, with_priority: bool) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": list(request.messages),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": dict(request.schema)},
        },
    }
    if with_priority:
        body["priority"] = request.priority
    return body


def _failure(status: int, headers: Mapping[str, str], model: str) -> StepFailed:
    """What a status means. Wrong settings of ours are nobody's fault among the patients: their events wait."""
    if status in _MISCONFIGURED:
        return _unavailable(
            f"answered {status}: {_MISCONFIGURED[status]}; see model.url, model.name ({model}), api_key"
        )
    if status in _RETRIED or status >= 500:
        return _unavailable(f"answered {status}", retry_after=_seconds(headers.get("Retry-After")))
    return StepFailed(
        ErrorClass.MODEL_REJECTED,
        f"the model server answered {status}: it does not take this request (too long for its context, or a schema "
        "that it does not know)",
    )


def _unavailable(what: str, *, retry_after: float | None = None) -> StepFailed:
    return StepFailed(ErrorClass.MODEL_UNAVAILABLE, f"the model server {what}", retry_after=retry_after)


def _seconds(retry_after: str | None) -> float | None:
    """The delay-seconds form of Retry-After (RFC 9110 10.2.3); model servers do not send the date form."""
    try:
        return max(float(retry_after or ""), 0.0)
    except ValueError:
        return None


def _answer(content: bytes, seconds: float) -> ChatAnswer:
    try:
        whole = orjson.loads(content)
        choice = whole["choices"][0]
        text = choice["message"].get("content") or ""
        usage = whole.get("usage") or {}
        return ChatAnswer(
            text=str(text),
            finish_reason=str(choice.get("finish_reason") or "stop"),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            seconds=seconds,
            model=str(whole.get("model") or ""),
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _unavailable("answered 200 with something that is no chat completion") from None
