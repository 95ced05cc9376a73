"""The demo waits for Prometheus's looks, of a real Prometheus over a page that changes under it."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from pipelines.demo import seen

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]

RULES = "groups: [{name: one, interval: 1s, rules: [{record: one, expr: vector(1)}]}]"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture
def unfolded() -> Iterator[tuple[Gauge, int]]:
    """What the exporter's page says is not counted yet, and the page's port; two decisions are."""
    registry, port = CollectorRegistry(), free_port()
    gauge = Gauge("careloom_work_unfolded_items", "of the test", registry=registry)
    Counter("careloom_decisions_total", "of the test", registry=registry).inc(2)
    server, thread = start_http_server(port, "127.0.0.1", registry)
    yield gauge, port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def prometheus(tmp_path: Path, unfolded: tuple[Gauge, int]) -> Iterator[str]:
    own = free_port()
    (tmp_path / "rules.yml").write_text(RULES)
    (tmp_path / "prometheus.yml").write_text(
        f"""
        global: {{scrape_interval: 1s}}
        rule_files: [rules.yml]
        scrape_configs:
          - {{job_name: exporter, static_configs: [{{targets: ["127.0.0.1:{unfolded[1]}"]}}]}}
          - {{job_name: prometheus, static_configs: [{{targets: ["127.0.0.1:{own}"]}}]}}
        """
    )
    process = subprocess.Popen(
        ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}",
         f"--web.listen-address=127.0.0.1:{own}", "--log.level=error"],
    )  # fmt: skip
    yield f"http://127.0.0.1:{own}"
    process.terminate()
    process.wait()


def test_it_goes_on_when_every_process_was_looked_at_and_all_that_was_done_is_counted(prometheus: str) -> None:
    assert seen.before_the_first_event(prometheus)
    assert seen.after_the_decisions(prometheus, 2)
    assert seen.after_the_last_draft(prometheus)


def test_it_says_so_where_something_is_not_counted_or_nobody_answers(
    prometheus: str, unfolded: tuple[Gauge, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert seen.before_the_first_event(prometheus)
    unfolded[0].set(1)
    monkeypatch.setattr(seen, "PATIENCE", 3.0)
    assert not seen.after_the_last_draft(prometheus)
    assert not seen.after_the_decisions(prometheus, 3)
    assert not seen.before_the_first_event(f"http://127.0.0.1:{free_port()}")


def test_without_prometheus_nothing_is_waited_for() -> None:
    assert seen.before_the_first_event(None)
    assert seen.after_the_decisions(None, 1)
    assert seen.after_the_last_draft(None)
