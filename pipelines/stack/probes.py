"""Whether a part of the stack answers: small probes that can be written to a file and asked by another process."""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import urlsplit

from pipelines.errors import StackError

#: Straight to loopback, whatever HTTP_PROXY says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_TIMEOUT = 5.0
#: Seconds: three missed beats of Airflow's five, and some.
_FRESH = 20.0


@dataclass(frozen=True, slots=True)
class Probe:
    """One question that a healthy part answers.

    Attributes:
        kind: "http" (a 2xx), "tcp" (accepts), "kafka" (lists its topics), "postgres" (takes a connection), "heartbeat"
            (another server's JSON holds the time of its last sign of life, not older than `_FRESH`).
        target: URL, or host:port for "tcp" and "kafka"; may hold a password, so it is written to 0600 files only.
        path: for "heartbeat": keys to the time (ISO 8601).
    """

    kind: Literal["http", "tcp", "kafka", "postgres", "heartbeat"]
    target: str
    path: tuple[str, ...] = ()

    @property
    def own(self) -> bool:
        """Whether the program asked about is the one that answers; else another reports on it."""
        return self.kind != "heartbeat"

    @property
    def port(self) -> int | None:
        """The port asked."""
        return urlsplit(self.target if "://" in self.target else f"//{self.target}").port

    def ask(self, since: float = 0.0) -> str | None:
        """None when healthy, else why not, in a few words without any secret.

        Args:
            since: UNIX time of the program's start; an older sign of life is its predecessor's.
        """
        try:
            if self.kind == "heartbeat":
                return _heartbeat(self, since)
            return _KINDS[self.kind](self)
        except urllib.error.HTTPError as error:
            return f"HTTP {error.code}"
        except (OSError, http.client.HTTPException) as error:
            return f"no answer ({type(getattr(error, 'reason', error)).__name__})"


def wait(
    ask: Callable[[], str | None], *, patience: float, ended: Callable[[], str | None], every: float = 0.1
) -> float:
    """Ask until the answer is yes; returns the seconds it took.

    Args:
        ask: as `Probe.ask`.
        patience: seconds after which it is given up.
        ended: why waiting longer is no use (the program ended for good), or None.
        every: seconds between two questions.

    Raises:
        StackError: it never became healthy.
    """
    began = time.monotonic()
    while True:
        reason = ask()
        passed = time.monotonic() - began
        if reason is None:
            return passed
        if over := ended():
            raise StackError(over)
        if passed > patience:
            raise StackError(f"not healthy after {patience:.0f} s: {reason}")
        time.sleep(every)


def _http(probe: Probe) -> str | None:
    with _DIRECT.open(probe.target, timeout=_TIMEOUT):
        return None


def _heartbeat(probe: Probe, since: float) -> str | None:
    with _DIRECT.open(probe.target, timeout=_TIMEOUT) as answer:
        found = json.loads(answer.read())
    for key in probe.path:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str):
        return "no sign of life yet"
    beat = datetime.fromisoformat(found).timestamp()
    now = time.time()
    return None if beat >= max(since, now - _FRESH) else f"last sign of life {now - beat:.0f} s ago"


def _tcp(probe: Probe) -> str | None:
    host, _, port = probe.target.rpartition(":")
    socket.create_connection((host, int(port)), timeout=_TIMEOUT).close()
    return None


def _kafka(probe: Probe) -> str | None:
    _tcp(probe)  # cheap, and silent where kafka-python would log each try
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        client = KafkaAdminClient(bootstrap_servers=probe.target, request_timeout_ms=int(_TIMEOUT * 1000))
        try:
            client.list_topics()
        finally:
            client.close()
    except KafkaError as error:
        return type(error).__name__
    return None


def _postgres(probe: Probe) -> str | None:
    parts = urlsplit(probe.target)
    _tcp(Probe("tcp", f"{parts.hostname}:{parts.port}"))
    import psycopg

    try:
        psycopg.connect(probe.target, connect_timeout=int(_TIMEOUT)).close()
    except psycopg.OperationalError as error:
        return f"no connection ({error.sqlstate or 'starting'})"
    return None


_KINDS: dict[str, Callable[[Probe], str | None]] = {"http": _http, "tcp": _tcp, "kafka": _kafka, "postgres": _postgres}
