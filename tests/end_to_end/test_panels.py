"""No panel of any dashboard is empty: every query is run against what Prometheus kept of a demo."""

from __future__ import annotations

import json
import math
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("grafana_foundation_sdk", reason="grafana-foundation-sdk is a development dependency")

from monitoring.dashboards.__main__ import BOARDS
from monitoring.dashboards.description import Board
from monitoring.dashboards.grafana import plain
from pipelines.stack import statsd, vllm

pytestmark = [pytest.mark.end_to_end, pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Prometheus of a finished demo has kept."""
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed (Debian: apt-get install prometheus)")
    state = tmp_path_factory.mktemp("panels") / "state"
    state.parent.chmod(0o755)
    command = [sys.executable, "-m", "pipelines.cli", "demo", "--state", str(state)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return state / "prometheus" / "data"


@pytest.fixture(scope="module")
def ask(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """`ask("query", query=..., time=...)`: the result of one call of the API of a Prometheus over that data."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "empty.yml").write_text("{}", encoding="utf-8")
    log = (folder / "log").open("wb")
    arguments = (
        f"--config.file={folder / 'empty.yml'}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    process = subprocess.Popen(["prometheus", *arguments], stdout=log, stderr=log)

    def call(what: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return json.loads(answer.read())["data"]["result"]

    try:
        for _ in range(600):
            try:
                call("query", query="1")
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield call
    finally:
        process.terminate()
        process.wait()
        log.close()


@pytest.fixture(scope="module")
def then(ask: Ask) -> str:
    """The last time at which everything was up: the demo stops its processes before Prometheus."""
    now = time.time()
    [series] = ask("query_range", query="sum(up)", start=str(now - 1800), end=str(now), step="5")
    most = max(float(value) for _, value in series["values"])
    return str(max(at for at, value in series["values"] if float(value) == most))


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_no_panel_is_empty_after_a_demo(board: Board, ask: Ask, then: str) -> None:
    if board.uid == "careloom-airflow" and statsd.missing():
        pytest.skip(str(statsd.missing()))
    rows = [row for row in board.rows if row.title != "vLLM" or vllm.missing() is None]
    empty = [
        panel.title
        for row in rows
        for panel in row.panels
        if not any(_values(ask("query", query=plain(expression), time=then)) for expression in panel.queries.values())
    ]
    assert empty == []


def _values(result: list[dict[str, Any]]) -> list[float]:
    """What would be drawn: NaN is not."""
    return [number for one in result if not math.isnan(number := float(one["value"][1]))]
