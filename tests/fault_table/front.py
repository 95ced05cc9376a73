"""What stands before the hospital's FHIR server, and can refuse: `python -m tests.fault_table.front PORT SERVER`.

`POST /fault {"mode": "refuse"}` answers 403 to all that careloom asks, `"reject-writes"` 422 to every transaction,
`"reject-one"` 422 to the admission note of a patient whose id holds `MARK`; `""` lets everything through.
"""

from __future__ import annotations

import sys

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

#: In the id of a patient of whom the server never takes drafts of one kind: LOINC's admission note.
MARK, KIND = "never-taken", "47039-3"
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


def create_app(own: str, server: str) -> Starlette:
    """The application.

    Args:
        own: its own base, without a path.
        server: the base of the server behind it, without a path.
    """
    client = httpx.AsyncClient(base_url=server, timeout=30)
    state = {"mode": ""}

    async def fault(request: Request) -> Response:
        state["mode"] = (await request.json())["mode"]
        return JSONResponse(state)

    async def through(request: Request) -> Response:
        body = await request.body()
        if status := refusal(state["mode"], request.method, body):
            diagnostics = {"severity": "error", "code": "processing", "diagnostics": "refused by the fault run"}
            return JSONResponse({"resourceType": "OperationOutcome", "issue": [diagnostics]}, status)
        headers = {name: value for name, value in request.headers.items() if name not in _DROPPED}
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        try:
            answer = await client.request(request.method, path, content=body, headers=headers)
        except httpx.TransportError:
            return Response(status_code=502)
        kept = {name: value.replace(server, own) for name, value in answer.headers.items() if name not in _DROPPED}
        return Response(answer.content.replace(server.encode(), own.encode()), answer.status_code, kept)

    methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"]
    return Starlette(routes=[Route("/fault", fault, methods=["POST"]), Route("/{path:path}", through, methods=methods)])


if __name__ == "__main__":
    number = int(sys.argv[1])
    app = create_app(f"http://127.0.0.1:{number}", sys.argv[2])
    uvicorn.run(app, host="127.0.0.1", port=number, log_level="warning", access_log=False)
