"""What stands before the hospital's FHIR server, and can refuse: `python -m tests.fault_table.front PORT SERVER`.

`POST /fault {"mode": "refuse"}` answers 403 to all that careloom asks, `"reject-writes"` 422 to every transaction,
`"reject-one"` 422 to the admission note of a patient whose id holds `MARK`; `"loses"` says 200 to every third message
and passes it on to nobody; `""` lets everything through. A transaction about a patient whose id begins with
`written-after-24` is answered 24 s later, or when a mode is set; until then a space comes now and then. In the mode
`"quick"` it is answered at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import sys
from collections.abc import AsyncIterator

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

#: In the id of a patient of whom the server never takes drafts of one kind: LOINC's admission note.
MARK, KIND = "never-taken", "47039-3"
_LATE = re.compile(rb"written-after-([1-9]\d*)-")
#: One message in so many is lost.
LOST = 3
#: Seconds between two signs of life of an answer that takes its time.
_SIGN = 10.0
_DROPPED = {"host", "content-length", "connection", "transfer-encoding", "content-encoding", "accept-encoding"}


def refusal(mode: str, method: str, body: bytes) -> int | None:
    """The status with which a request is refused, or None.

    Args:
        mode: what is wrong with the server.
        method: of the request.
        body: of the request.
    """
    if mode == "refuse":
        return 403
    marked = MARK.encode() in body and KIND.encode() in body
    if method == "POST" and (mode == "reject-writes" or (mode == "reject-one" and marked)):
        return 422
    return None


def patience(method: str, path: str, body: bytes) -> float:
    """Seconds that the answer to a request takes: of a transaction, no other.

    Args:
        method, path, body: of the request.
    """
    found = _LATE.search(body) if (method, path.rstrip("/")) == ("POST", "/fhir") else None
    return float(found[1]) if found else 0.0


def create_app(own: str, server: str, *, transport: httpx.AsyncBaseTransport | None = None) -> Starlette:
    """The application.

    Args:
        own: its own base, without a path.
        server: the base of the server behind it, without a path.
        transport: for tests.
    """
    client = httpx.AsyncClient(base_url=server, timeout=30, transport=transport)
    state = {"mode": ""}
    told = itertools.count(1)
    let_go = [asyncio.Event()]

    async def fault(request: Request) -> Response:
        state["mode"] = (await request.json())["mode"]
        let_go[0].set()
        let_go[0] = asyncio.Event()
        return JSONResponse(state)

    async def late(answer: Response, seconds: float) -> AsyncIterator[bytes]:
        signal, left = let_go[0], seconds
        while left > 0 and not signal.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(signal.wait(), min(left, _SIGN))
            left -= _SIGN
            yield b" "
        yield bytes(answer.body)

    async def through(request: Request) -> Response:
        body = await request.body()
        if status := refusal(state["mode"], request.method, body):
            diagnostics = {"severity": "error", "code": "processing", "diagnostics": "refused by the fault run"}
            return JSONResponse({"resourceType": "OperationOutcome", "issue": [diagnostics]}, status)
        if state["mode"] == "loses" and request.method == "POST" and next(told) % LOST == 0:
            return Response(status_code=200)
        headers = {name: value for name, value in request.headers.items() if name not in _DROPPED}
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        try:
            answer = await client.request(request.method, path, content=body, headers=headers)
        except httpx.TransportError:
            return Response(status_code=502)
        kept = {name: value.replace(server, own) for name, value in answer.headers.items() if name not in _DROPPED}
        passed = Response(answer.content.replace(server.encode(), own.encode()), answer.status_code, kept)
        seconds = patience(request.method, request.url.path, body)
        if seconds and state["mode"] != "quick":
            return StreamingResponse(late(passed, seconds), answer.status_code, kept)
        return passed

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]
    return Starlette(routes=[Route("/fault", fault, methods=["POST"]), Route("/{path:path}", through, methods=methods)])


if __name__ == "__main__":
    number = int(sys.argv[1])
    app = create_app(f"http://127.0.0.1:{number}", sys.argv[2])
    uvicorn.run(app, host="127.0.0.1", port=number, log_level="warning", access_log=False)
