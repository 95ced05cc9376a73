"""Whom the house would call: a real Alertmanager with the example's configuration, and the telephone at its end."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from pipelines.stack.part import PROJECT
from pipelines.stack.probes import Probe
from pipelines.stack.supervisor import Program
from tests.fault_table.scaling import scaled_durations

EXAMPLE = PROJECT / "monitoring" / "alertmanager" / "alertmanager.example.yml"
WATCHDOG = "CareloomWatchdog"
#: Seconds between two looks at Alertmanager.
_LOOK = 1.0
#: Seconds without a call after which the dead man's switch calls somebody; it is called once a minute.
SILENCE = 150.0


def name_of(labels: dict[str, str]) -> str:
    """An alert as the table shows it: its name, and what it is about."""
    about = labels.get("scenario") or labels.get("dependency") or labels.get("volume") or labels.get("target")
    return labels["alertname"] + (f" ({about})" if about else "")


@dataclass(frozen=True)
class Call:
    """One message that somebody got.

    Attributes:
        at: UNIX time.
        receiver: "on-call", "tickets"; "dead-mans-switch" where that one calls somebody, since nobody calls it.
        alert: its name, and what it is about.
        labels: all of them.
        firing: whether it says that it fires; else, that it is over.
    """

    at: float
    receiver: str
    alert: str
    labels: dict[str, str] = field(hash=False)
    firing: bool = True


class Telephone:
    """Takes Alertmanager's webhooks on loopback. Close it.

    Attributes:
        calls: in order, without the dead man's switch.
        alive: UNIX times at which the dead man's switch was called.
        silent: whether it has called somebody, and nobody has called it since.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.alive: list[float] = []
        self.silent = False
        self._over = threading.Event()
        telephone = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                telephone.ring(self.path.strip("/"), json.loads(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        threading.Thread(target=self._listen, daemon=True).start()

    def ring(self, receiver: str, message: dict[str, Any]) -> None:
        """One webhook."""
        now = time.time()
        if receiver == "dead-mans-switch":
            self.alive.append(now)
            if self.silent:
                self.silent = False
                self._switch(now, firing=False)
            return
        for one in message["alerts"]:
            labels = one["labels"]
            self.calls.append(Call(now, receiver, name_of(labels), labels, one["status"] == "firing"))

    def _listen(self) -> None:
        """The dead man's switch, which stands outside."""
        while not self._over.wait(_LOOK):
            now = time.time()
            if self.alive and not self.silent and now - self.alive[-1] > SILENCE:
                self.silent = True
                self._switch(now, firing=True)

    def _switch(self, now: float, *, firing: bool) -> None:
        self.calls.append(Call(now, "dead-mans-switch", WATCHDOG, {"alertname": WATCHDOG}, firing))

    def close(self) -> None:
        """Hang up."""
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Seen:
    """An alert as Alertmanager knew it.

    Attributes:
        labels: of the alert.
        first, last: UNIX times at which it was first and last seen there.
        quiet: seconds at which it was inhibited in every look so far.
    """

    labels: dict[str, str]
    first: float
    last: float
    quiet: bool = True


class Watch:
    """Looks at Alertmanager every second and remembers what it knew. Close it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._seen: dict[str, Seen] = {}
        self.now: dict[str, bool] = {}
        self._thread = threading.Thread(target=self._look_again, daemon=True)
        self._thread.start()

    def begin(self) -> None:
        """Forget what was."""
        with self._lock:
            self._seen.clear()

    def seen(self) -> dict[str, Seen]:
        """What was known since `begin`, by the alert's name."""
        with self._lock:
            return dict(self._seen)

    def active(self) -> set[str]:
        """What fires now, inhibited or not."""
        with self._lock:
            return set(self.now)

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    def _look_again(self) -> None:
        with httpx.Client(timeout=5) as client:
            while not self._over.wait(_LOOK):
                try:
                    alerts = client.get(f"{self._url}/api/v2/alerts").json()
                except httpx.HTTPError:
                    continue
                self._note(alerts)

    def _note(self, alerts: list[dict[str, Any]]) -> None:
        now = time.time()
        with self._lock:
            self.now = {}
            for one in alerts:
                if one["labels"]["alertname"] == WATCHDOG:
                    continue
                name = name_of(one["labels"])
                inhibited = one["status"]["state"] == "suppressed"
                self.now[name] = inhibited
                seen = self._seen.setdefault(name, Seen(one["labels"], now, now))
                seen.last = now
                # an alert that has just come is not yet decided on; whether somebody was told is the telephone's to say
                seen.quiet = seen.quiet and inhibited


def alertmanager(folder: Path, port: int, telephone: int, scale: float) -> Program:
    """Alertmanager with the example's configuration; only its receivers' addresses are put in.

    Args:
        folder: for its configuration and data.
        port: it listens there.
        telephone: port of the receiver.
        scale: of its waits between messages about one group; `group_wait` stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = EXAMPLE.read_text("utf-8").replace("http://127.0.0.1:9/", f"http://127.0.0.1:{telephone}/")
    if scale != 1:
        shorten: Callable[[re.Match[str]], str] = lambda found: found[1] + scaled_durations(found[2], scale, least=10)  # noqa: E731
        text = re.sub(r"(group_interval: )(\w+)", shorten, text)
    file = folder / "alertmanager.yml"
    file.write_text(text, "utf-8")
    return Program(
        name="alertmanager",
        argv=(
            shutil.which("prometheus-alertmanager") or "alertmanager",
            f"--config.file={file}",
            f"--storage.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ),
        probe=Probe("http", f"http://127.0.0.1:{port}/-/ready"),
    )
