"""The gateway's paths; every way out of them is an answer, never an exception."""

from __future__ import annotations

import logging
import re
import time
from datetime import UTC, datetime

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from monitoring.metrics import EVENTS_REFUSED, GATEWAY, REQUEST_DURATION, UNKNOWN_SOURCE, RequestOutcome, exposition
from pipelines.gateway.answers import Answer, answer_to, taken
from pipelines.gateway.authentication import Doorkeeper
from pipelines.gateway.body import read_body
from pipelines.gateway.errors import NoSuchPlace, Overloaded, Unauthorized, WrongMethod
from pipelines.gateway.health import Health
from pipelines.gateway.log import place
from pipelines.gateway.reception import Arrival, Reception

log = logging.getLogger(__name__)

BODY_TIMEOUT = 30.0
"""Seconds that a sender has for its body."""
IN_FLIGHT = 256
"""Requests under way at the same time; each may hold a body at the limit."""

#: method -> paths below /fhir/{source} that take it: how many of type and id are in the path.
_METHODS = {"POST": (0, 1), "PUT": (2,), "DELETE": (2,)}
_EVENTS = re.compile("/fhir/(?P<source>[^/]+)(?:/(?P<type>[^/]+)(?:/(?P<id>[^/]+))?)?").fullmatch
_HUNG_UP = 499  # nginx's number for a sender that did not wait; nobody reads this answer


class Endpoints:
    """What is served where.

    Args:
        doorkeeper: knows the sources' tokens.
        reception: takes what an admitted source sends.
        health: of the process and of what it needs.
        max_body_bytes: of a request, before and after decompression.
        body_timeout: seconds that a sender has for its body.
    """

    def __init__(
        self,
        doorkeeper: Doorkeeper,
        reception: Reception,
        health: Health,
        *,
        max_body_bytes: int,
        body_timeout: float = BODY_TIMEOUT,
    ) -> None:
        self._doorkeeper = doorkeeper
        self._reception = reception
        self._health = health
        self._max_body_bytes = max_body_bytes
        self._body_timeout = body_timeout
        self._in_flight = 0

    def routes(self) -> list[Route]:
        """All but the events' paths, for Starlette."""
        return [Route("/health", self.live), Route("/ready", self.ready), Route("/metrics", self.metrics)]

    def before(self, others: ASGIApp) -> ASGIApp:
        """The events' paths, and `others` behind them.

        Starlette's routing and middleware were 16 % of an event's time in the event loop (docs/decisions/014) and would
        do nothing for it: whatever happens in `events` is an answer, and the method is looked at there.
        """

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            named = _EVENTS(scope["path"]) if scope["type"] == "http" else None
            if named is None:
                await others(scope, receive, send)
                return
            scope["path_params"] = named.groupdict()
            answer = await self.events(Request(scope, receive))
            await answer(scope, receive, send)

        return app

    async def live(self, request: Request) -> Response:
        """200 as long as the process answers."""
        return JSONResponse({"status": "live"})

    async def ready(self, request: Request) -> Response:
        """200 when events can be taken, else 503; either way with the state of each thing it needs."""
        parts = await self._health.parts()
        ready = self._health.can_take(parts)
        return JSONResponse({"status": "ready" if ready else "not ready", **parts}, 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Prometheus."""
        body, content_type = exposition(GATEWAY, request.headers.get("accept", ""))
        return Response(body, media_type=None, headers={"content-type": content_type})

    async def events(self, request: Request) -> Response:
        """Take what a source sends."""
        label = self._doorkeeper.label(request.path_params["source"]) or UNKNOWN_SOURCE
        timer = _Timer()
        try:
            self._enter()
            try:
                await self._take(request, timer)
            finally:
                self._in_flight -= 1
        except ClientDisconnect:
            return Response(status_code=_HUNG_UP)
        except Exception as error:  # noqa: BLE001 the last resort: whatever happens, the sender gets an answer without detail
            return self._refuse(answer_to(error), error, label, timer)
        REQUEST_DURATION.labels(label, RequestOutcome.TAKEN).observe(timer.seconds)
        return taken()

    def _enter(self) -> None:
        self._in_flight += 1
        if self._in_flight > IN_FLIGHT:
            self._in_flight -= 1
            raise Overloaded("too many requests are under way; send it again")

    async def _take(self, request: Request, timer: _Timer) -> None:
        source = self._doorkeeper.admit(request.path_params["source"], request.headers.get("authorization"))
        if source is None:
            raise Unauthorized
        path_type, path_id = request.path_params.get("type"), request.path_params.get("id")
        depth = sum(part is not None for part in (path_type, path_id))
        if depth not in _METHODS.get(request.method, ()):
            allowed = ", ".join(method for method, depths in _METHODS.items() if depth in depths)
            raise WrongMethod(f"this path takes {allowed or 'nothing'}", {"Allow": allowed})
        body = await read_body(request, limit=self._max_body_bytes, timeout=self._body_timeout)
        timer.restart()
        arrival = Arrival(source, request.method, path_type, path_id, request.headers, body, datetime.now(UTC))
        await self._reception.receive(arrival)

    def _refuse(self, answer: Answer, error: Exception, label: str, timer: _Timer) -> Response:
        failed = answer.status >= 500
        EVENTS_REFUSED.labels(label, answer.reason).inc()
        outcome = RequestOutcome.FAILED if failed else RequestOutcome.REFUSED
        REQUEST_DURATION.labels(label, outcome).observe(timer.seconds)
        kind, where = place(error)
        fields = {"source": label, "status": answer.status, "reason": answer.reason.value, "error": kind}
        if answer.status == 500:
            fields["at"] = where
        log.log(logging.WARNING if failed else logging.INFO, "request not taken", extra={"fields": fields})
        return answer.response()


class _Timer:
    """Seconds since the request's last byte, or since its head while there is no body yet."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._start


async def nothing_here(request: Request, error: Exception) -> Response:
    """Every other path."""
    return answer_to(NoSuchPlace("nothing is served here; events go to /fhir/<source>")).response()


async def method_not_allowed(request: Request, error: Exception) -> Response:
    """Every other method of /health, /ready and /metrics."""
    return answer_to(WrongMethod("this path takes GET", {"Allow": "GET"})).response()
