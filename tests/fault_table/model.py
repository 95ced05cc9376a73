"""A model server that can be told to be ill: `python -m tests.fault_table.model PORT`.

It answers as the stack's stand-in does and shows the queue as vLLM does. `POST /fault {"mode": "slow"}` makes it slow,
talk garbage, or answer one question in twenty of one scenario wrongly; `{"mode": ""}` mends it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.stack.stand_in import NAME, create_app

#: Seconds of a slow answer: more than half the deadline of an urgent scenario, less than `model.timeout`.
SLOW = 75.0
#: Every so many-th answer is wrong where a share of them is to be.
SHARE = 20
#: Stands in the answer's schema of the scenario that fails now and then.
FAILING = "present_illness"
GARBAGE = "<html>It works!</html>"


@dataclass
class Illness:
    """What is wrong with it, and what it counts.

    Attributes:
        mode: "" (well), "slow", "garbage" or "share".
        running: questions that it has not answered yet.
        asked: questions of the scenario that fails now and then.
        spoiled: of these, whose answer was wrong once: a task asks twice before its try has failed.
    """

    mode: str = ""
    running: int = 0
    asked: int = 0
    spoiled: set[str] = field(default_factory=set)

    def spoils(self, body: bytes) -> bool:
        """Whether the answer to this question is to be wrong; whoever asks it once more gets a wrong one again."""
        if self.mode == "share" and FAILING.encode() in body:
            question = json.dumps(json.loads(body)["messages"])
            if question in self.spoiled:
                self.spoiled.remove(question)
                return True
            self.asked += 1
            if self.asked % SHARE == 0:
                self.spoiled.add(question)
                return True
            return False
        return self.mode == "garbage"


def garbage() -> dict[str, Any]:
    """A completion as a wrong model gives it: well-formed, and no answer."""
    message = {"role": "assistant", "content": GARBAGE}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": NAME, "choices": [choice], "usage": usage}


class Ill:
    """The stand-in's application with its illness around it."""

    def __init__(self, inner: ASGIApp) -> None:
        self.inner = inner
        self.illness = Illness()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As an ASGI application."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        answer = {
            "/fault": self._fault,
            "/metrics": self._metrics,
            "/v1/chat/completions": self._chat,
        }.get(scope["path"])
        if answer is None:
            await self.inner(scope, receive, send)
            return
        await answer(scope, receive, send)

    async def _fault(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.illness.mode = json.loads(await Request(scope, receive).body())["mode"]
        self.illness.asked = 0
        self.illness.spoiled.clear()
        await JSONResponse({"mode": self.illness.mode})(scope, receive, send)

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        running = f'vllm:num_requests_running{{model_name="{NAME}"}} {self.illness.running}'
        waiting = f'vllm:num_requests_waiting{{model_name="{NAME}"}} 0'
        await PlainTextResponse(f"{running}\n{waiting}\n")(scope, receive, send)

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        self.illness.running += 1
        try:
            if self.illness.mode == "slow":
                await self._wait()
            if self.illness.spoils(body):
                answer: Response = JSONResponse(garbage())
                await answer(scope, receive, send)
                return
        finally:
            self.illness.running -= 1

        async def again() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        await self.inner(scope, again, send)

    async def _wait(self) -> None:
        """Slowly; at once when it is mended meanwhile."""
        for _ in range(int(SLOW * 2)):
            if self.illness.mode != "slow":
                return
            await asyncio.sleep(0.5)


if __name__ == "__main__":
    uvicorn.run(Ill(create_app()), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
