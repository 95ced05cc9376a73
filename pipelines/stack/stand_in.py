"""A stand-in for a model server, OpenAI-compatible: `python -m pipelines.stack.stand_in PORT`.

There is no model in it. It answers with the least JSON that the asked-for schema allows, says "stand-in" wherever it
says anything, and counts what it was asked, so that the whole way can be walked on a machine that has no vLLM.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipelines.stack.schema_sample import WORD, UnsupportedSchema, least

NAME = "stand-in"


class _Refused(Exception):
    """The request is not one that an OpenAI-compatible server would take."""


def _tokens(text: str) -> int:
    """About what a tokenizer would count."""
    return len(text) // 4 + 1


def _answer_text(body: dict[str, Any]) -> str:
    """What the stand-in says to this request."""
    asked = body.get("response_format") or {}
    structured = body.get("structured_outputs") or {}
    if choices := structured.get("choice"):
        return str(choices[0])
    schema = structured.get("json")
    if asked.get("type") == "json_schema":
        schema = (asked.get("json_schema") or {}).get("schema")
        if not isinstance(schema, dict):
            raise _Refused("response_format.json_schema.schema: missing")
    if isinstance(schema, dict):
        return json.dumps(least(schema), ensure_ascii=False, separators=(",", ":"))
    return json.dumps({WORD: True}) if asked.get("type") == "json_object" else f"{WORD}: no model answers here"


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise _Refused("messages: missing or empty")
    if body.get("model") != NAME:
        raise _Refused(f"model: only {NAME!r} is served here")
    if body.get("stream"):
        raise _Refused("stream: the stand-in does not stream")
    text = _answer_text(body)
    limit = int(body.get("max_completion_tokens") or body.get("max_tokens") or sys.maxsize)
    whole = _tokens(text) <= limit
    text = text if whole else text[: 4 * limit]
    asked = sum(_tokens(str(message.get("content", ""))) for message in messages)
    said = _tokens(text)
    return {
        "id": f"chatcmpl-{WORD}-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": NAME,
        "system_fingerprint": WORD,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop" if whole else "length",
            }
        ],
        "usage": {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said},
    }


def create_app() -> Starlette:
    """The server, with counters of its own."""
    counts = {"answered": 0, "refused": 0}

    async def chat(request: Request) -> Response:
        try:
            body = json.loads(await request.body())
            answer = _completion(body if isinstance(body, dict) else {})
        except (ValueError, UnsupportedSchema, _Refused) as error:
            counts["refused"] += 1
            why = "not JSON" if isinstance(error, ValueError) else f"{type(error).__name__.lstrip('_')}: {error}"
            return JSONResponse({"error": {"message": why, "type": "BadRequestError", "code": 400}}, 400)
        counts["answered"] += 1
        sent = request.headers.get("x-request-id")
        return JSONResponse(answer, headers={"x-request-id": sent} if sent else None)

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": NAME, "object": "model", "owned_by": WORD}]})

    async def health(request: Request) -> Response:
        return Response()

    async def metrics(request: Request) -> Response:
        lines = ["# TYPE stand_in_requests_total counter"]
        lines += [f'stand_in_requests_total{{outcome="{name}"}} {count}' for name, count in counts.items()]
        return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/models", models),
            Route("/health", health),
            Route("/metrics", metrics),
        ]
    )


if __name__ == "__main__":
    uvicorn.run(create_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
