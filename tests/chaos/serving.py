"""A small HTTP server of the harness's own in a thread; its port stays the same when it is away for a while."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import uvicorn
from starlette.applications import Starlette


class Served:
    """An application on 127.0.0.1. Close it.

    Attributes:
        url: without a slash at its end.
    """

    def __init__(self, app: Starlette) -> None:
        self._app = app
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._port = self._listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        self.up()

    def up(self) -> None:
        """Answer."""
        if self._listening.fileno() < 0:
            self._listening = socket.create_server(("127.0.0.1", self._port))
        # keep-alive longer than any pause of a client: a server that hangs up first is a fault of its own
        settings = uvicorn.Config(self._app, log_level="critical", lifespan="off", timeout_keep_alive=300)
        self._server = uvicorn.Server(settings)
        listening = {"sockets": [self._listening]}
        self._thread = threading.Thread(target=self._server.run, kwargs=listening, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)

    def down(self) -> None:
        """Refuse connections, and cut those that are open."""
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(20)
        self._listening.close()

    def close(self) -> None:
        """End."""
        if self._listening.fileno() >= 0:
            self.down()


class CutOff:
    """An answer that ends in the middle: its head promises more bytes than come, and the connection is closed."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As an ASGI application."""
        headers = [(b"content-type", b"application/json"), (b"content-length", b"5000")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"resourceType": "Bun'})
