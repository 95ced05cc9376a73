"""`kind = "openai"`: any OpenAI-compatible chat server, vLLM first of all."""

from __future__ import annotations

from typing import Any

import orjson

from pipelines.errors import ErrorClass, StepFailed
from pipelines.failures.policy import Pace
from pipelines.models.server import ModelServer, unavailable
from pipelines.models.settings import Model
from plugins.model_backend import ChatAnswer, ChatRequest


class OpenAIChat:
    """A `ModelBackend` over `POST <url>/chat/completions`.

    Args:
        config: where the server is and how it is asked.
        pace: waits between tries of one request.
    """

    def __init__(self, config: Model, pace: Pace | None = None) -> None:
        self._name = config.served_name
        self._url = f"{config.url.rstrip('/')}/chat/completions"
        self._server = ModelServer(config, pace)
        self._takes_priority: bool | None = None

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """See `ModelBackend.chat`."""
        return await self._server.past_blips(lambda attempt: self._asked(request, attempt), request.timeout)

    async def close(self) -> None:
        """Give back the connections."""
        await self._server.close()

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
        sent = body(self._name, request)
        if with_priority:
            sent["priority"] = request.priority
        content, seconds = await self._server.post(self._url, orjson.dumps(sent), f"{request.request_id}-{attempt}")
        try:
            return answer_of(orjson.loads(content), seconds)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise unavailable("answered 200 with something that is no chat completion") from None


def body(model: str, request: ChatRequest) -> dict[str, Any]:
    """A request as OpenAI's chat completions take it, without `priority`."""
    return {
        "model": model,
        "messages": list(request.messages),
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": dict(request.schema)},
        },
    }


def answer_of(whole: Any, seconds: float) -> ChatAnswer:
    """A chat completion as our answer.

    Raises:
        KeyError, IndexError, TypeError, ValueError, AttributeError: it is none.
    """
    choice = whole["choices"][0]
    usage = whole.get("usage") or {}
    return ChatAnswer(
        text=str(choice["message"].get("content") or ""),
        finish_reason=str(choice.get("finish_reason") or "stop"),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        completion_tokens=int(usage.get("completion_tokens") or 0),
        seconds=seconds,
        model=str(whole.get("model") or ""),
    )
