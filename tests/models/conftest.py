"""A fake model server whose every answer a test decides, and the stand-in of the development stack, on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Behaviour = Callable[[dict[str, Any]], Response | float | None]


@dataclass
class FakeModelServer:
    """Answers with `behaviours` in turn, the last one for ever; notes what it was asked.

    A behaviour returns a Response, or seconds to wait before a good answer, or None for a good answer at once.
    """

    url: str = ""
    name: str = "fake-model"
    behaviours: list[Behaviour] = field(default_factory=lambda: [good])
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    cancelled: int = 0

    async def chat(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            behaviour = self.behaviours[min(len(self.asked), len(self.behaviours)) - 1]
            answer = behaviour(body)
            if isinstance(answer, Response):
                return answer
            await _unless_gone(request, answer or 0.0)
            return completion(self.name, '{"ok":true}')
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.in_flight -= 1

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])


async def _unless_gone(request: Request, seconds: float) -> None:
    """Wait, as a model server does, only for as long as the client does."""
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(0.02)
        if await request.is_disconnected():
            raise asyncio.CancelledError


def good(_: dict[str, Any]) -> None:
    return None


def completion(model: str, text: str, finish_reason: str = "stop") -> JSONResponse:
    return JSONResponse(
        {
            "model": model,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
            ],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
    )


@contextmanager
def serving(app: Starlette) -> Iterator[str]:
    """The app on a free port of the loopback interface; its base URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


@pytest.fixture
def model_server() -> Iterator[FakeModelServer]:
    fake = FakeModelServer()
    with serving(fake.app()) as url:
        fake.url = f"{url}/v1"
        yield fake


@pytest.fixture(params=["fake", "stand-in"])
def any_model_server(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """(url, model name) of each server that is held to the same contract."""
    if request.param == "fake":
        fake = FakeModelServer()
        app, name = fake.app(), fake.name
    else:
        from pipelines.stack import stand_in

        app, name = stand_in.create_app(), stand_in.NAME
    with serving(app) as url:
        yield f"{url}/v1", name


@pytest.fixture
def make_completion() -> Callable[..., JSONResponse]:
    return completion


@pytest.fixture
def serve() -> Callable[[Starlette], Any]:
    """`with serve(app) as url:` has the app on a free port of the loopback interface."""
    return serving
