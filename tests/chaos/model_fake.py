"""A model server that says one true thing of each patient, and can be made to fail in every way that one may."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from cases import WORD, word_of
from serving import CutOff, Served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pipelines.stack.schema_sample import least

NAME = "chaos-model"
Fault = Literal["", "500", "slow", "cut", "garbage", "schema", "another"]
#: Seconds that a slow answer takes: longer than the harness's `model.timeout`.
SLOW = 5.0

_FACT = re.compile(r"^(R\d+) (.*)$", re.MULTILINE)
_STRANGER = "p9999999"


@dataclass
class ModelFake:
    """The server. Close it.

    Attributes:
        fault: word of the patient -> what is wrong with the answer about him.
        spoilt: answers that were.
    """

    fault: Callable[[str], Fault] = lambda word: ""
    spoilt: int = 0
    asked: int = 0

    def __post_init__(self) -> None:
        self.server = Served(Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])]))
        self.url = f"{self.server.url}/v1"

    def close(self) -> None:
        """Stop answering."""
        self.server.close()

    async def _chat(self, request: Request) -> Any:
        self.asked += 1
        body = json.loads(await request.body())
        shown = body["messages"][-1]["content"]
        found = WORD.search(shown)
        fault = self.fault(found[0] if found else "")
        if fault:
            self.spoilt += 1
        match fault:
            case "500":
                return Response("boom", 500)
            case "slow":
                await asyncio.sleep(SLOW)
            case "cut":
                return CutOff()
            case "garbage":
                return PlainTextResponse("<html>the gateway in front of the model is unwell</html>")
        schema = body["response_format"]["json_schema"]["schema"]
        if fault == "schema":
            return _completion({"verdict": 7})
        return _completion(_said(schema, shown, another=fault == "another"))


def _said(schema: dict[str, Any], shown: str, *, another: bool) -> dict[str, Any]:
    """The first fact of the record, repeated with its tag; beside it what must never be kept, if asked to."""
    tag, fact = next(iter(_FACT.findall(shown)), ("R1", "nothing"))
    statements = [{"text": fact[:100], "sources": [tag]}]
    if another:
        statements += [
            {"text": f"Patient/{_STRANGER} reports the same", "sources": [tag]},
            {"text": f"{word_of(_STRANGER)}, record number 4711007, is allergic", "sources": [tag]},
        ]
    answer: dict[str, Any] = least(schema)
    for name, member in schema["properties"].items():
        if member.get("type") == "array":
            answer[name] = statements
    return answer


def _completion(answer: dict[str, Any]) -> Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": json.dumps(answer)}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    whole = {"object": "chat.completion", "model": NAME, "choices": [choice], "usage": usage}
    return Response(json.dumps(whole), media_type="application/json")
