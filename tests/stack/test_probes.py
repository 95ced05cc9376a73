"""Probes say yes, or why not, in a few words and without secrets."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from pipelines.errors import StackError
from pipelines.stack import ports
from pipelines.stack.probes import Probe, wait

_PAGES: dict[str, tuple[int, bytes]] = {"/yes": (200, b"{}"), "/busy": (503, b""), "/list": (200, b"[1]")}


@pytest.fixture
def server() -> Iterator[str]:
    class Pages(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = _PAGES[self.path]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    httpd = http.server.HTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_a_2xx_is_healthy_and_anything_else_is_not(server: str) -> None:
    assert Probe("http", f"{server}/yes").ask() is None
    assert Probe("http", f"{server}/busy").ask() == "HTTP 503"
    assert Probe("tcp", server.removeprefix("http://")).ask() is None


def test_a_sign_of_life_is_one_only_when_it_is_fresh_and_not_the_predecessors(server: str) -> None:
    now = time.time()

    def beat(seconds_ago: float, since: float = 0.0) -> str | None:
        moment = datetime.fromtimestamp(now - seconds_ago, UTC).isoformat()
        _PAGES["/beat"] = (200, json.dumps({"scheduler": {"latest": moment}}).encode())
        return Probe("heartbeat", f"{server}/beat", ("scheduler", "latest")).ask(since)

    assert beat(3) is None
    assert "last sign of life" in (beat(120) or "")
    assert "last sign of life" in (beat(3, since=now - 1) or "")
    assert Probe("heartbeat", f"{server}/beat", ("triggerer", "latest")).ask() == "no sign of life yet"
    assert Probe("heartbeat", f"{server}/list", ("a",)).ask() == "no sign of life yet"


@pytest.mark.parametrize("kind", ["http", "tcp", "kafka", "postgres"])
def test_nobody_there_is_said_without_the_password(kind: str) -> None:
    port = ports.choose()
    targets = {
        "http": f"http://127.0.0.1:{port}/",
        "postgres": f"postgresql://postgres:pass-word@127.0.0.1:{port}/x",
    }
    said = Probe(kind, targets.get(kind, f"127.0.0.1:{port}")).ask()  # type: ignore[arg-type]
    assert said == "no answer (ConnectionRefusedError)"


def test_a_proxy_of_the_environment_is_not_asked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{ports.choose()}")
    assert Probe("http", f"{server}/yes").ask() is None


def test_waiting_says_what_the_last_answer_was(server: str) -> None:
    with pytest.raises(StackError, match=r"not healthy after 0 s: HTTP 503"):
        wait(Probe("http", f"{server}/busy").ask, patience=0.0, ended=lambda: None)


def test_waiting_ends_when_it_is_of_no_use(server: str) -> None:
    with pytest.raises(StackError, match="it ended"):
        wait(Probe("http", f"{server}/busy").ask, patience=600, ended=lambda: "it ended")


@pytest.mark.parametrize(
    ("target", "port"),
    [("http://127.0.0.1:81/x", 81), ("127.0.0.1:82", 82), ("postgresql://postgres:a-b_c=@127.0.0.1:83/x", 83)],
)
def test_a_probe_knows_its_port(target: str, port: int) -> None:
    assert Probe("tcp", target).port == port
