"""The dispatcher as a process: killed at any moment it loses nothing and doubles nothing; asked to end it ends."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from pipelines.config import Config
from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.dispatcher.backoff import Backoff, Holds
from pipelines.dispatcher.batches import Batches
from pipelines.dispatcher.pressure import Pressure
from pipelines.ledger import Ledger, State
from pipelines.stack.settings import toml

pytestmark = pytest.mark.stack

NOTE = "post_visit.follow_up"


class Killed(BaseException):
    """Stands for SIGKILL at one exact place: nothing catches it."""


@pytest.fixture
def start(config: Config, tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    """Starts the dispatcher's process."""
    file = tmp_path / "careloom.toml"
    sections = config.model_dump(mode="json", exclude_defaults=True)
    sections["state_dir"] = str(tmp_path)
    sections["patient_salt"] = "salt"
    sections["ledger"]["url"] = config.ledger.url.get_secret_value()
    sections["airflow"]["password"] = config.airflow.password.get_secret_value()
    sections["sources"][0]["token"] = "t"
    file.write_text(toml(sections))

    def start_() -> subprocess.Popen[str]:
        log = (tmp_path / "dispatcher.log").open("a")
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines.dispatcher"],
            env={**os.environ, "CARELOOM_CONFIG": str(file)},
            stderr=log,
            text=True,
        )

    return start_


def test_killed_again_and_again_it_loses_nothing_and_doubles_nothing(
    start: Callable[[], Any], ledger: Ledger, ledger_engine: Engine, fake_airflow, send, until
):
    chance = random.Random(7)
    over = threading.Event()
    written = 0

    def tasks() -> None:
        nonlocal written
        while not over.wait(0.05):
            written += fake_airflow.work(ledger)

    worker = threading.Thread(target=tasks)
    worker.start()
    process = start()
    try:
        for round_ in range(3):
            send(50, first=50 * round_)
            until(lambda: ledger.account().events > 50 * round_)  # noqa: B023  called at once
            time.sleep(chance.uniform(0, 0.5))
            process.kill()
            process.wait()
            process = start()
        until(lambda: ledger.account().work.get(State.WRITTEN, 0) == 150, 120)
        until(lambda: not ledger.open_runs())
    finally:
        over.set()
        worker.join()
        process.kill()
        process.wait()
    account = ledger.account()
    assert (account.events, account.matches, account.missing, account.unaccounted) == (150, 150, 0, 0)
    assert written == 150
    with ledger_engine.begin() as connection:
        decided = set(connection.execute(text("SELECT run_id FROM runs")).scalars())
    assert {run_id for _, run_id in fake_airflow.runs} == decided


def test_asked_to_end_it_ends_cleanly_and_has_shown_its_metrics_and_logged_json(
    start: Callable[[], Any], config: Config, ledger: Ledger, fake_airflow, send, until, tmp_path: Path
):
    send(3)
    process = start()
    until(lambda: fake_airflow.runs)
    page = urllib.request.urlopen(f"http://127.0.0.1:{config.dispatcher.metrics_port}/metrics").read().decode()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert 'careloom_dispatcher_records_total{outcome="event"} 3.0' in page
    assert 'careloom_dispatcher_batch_items_count{scenario="post_visit.follow_up"}' in page
    lines = [json.loads(line) for line in (tmp_path / "dispatcher.log").read_text().splitlines()]
    assert {line["process"] for line in lines} == {"dispatcher"}
    assert lines[-1]["message"] == "ended"
    assert fake_airflow.work(ledger) == 3


def test_without_a_configuration_it_says_so_and_ends(tmp_path: Path):
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines.dispatcher"],
        env={**os.environ, "CARELOOM_CONFIG": str(tmp_path / "none.toml")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "not found" in json.loads(ended.stderr)["message"]


# --- killed at one exact place ----------------------------------------------------------------------------------------


class DiesAt:
    """An object of which one method dies, before or after it did its work."""

    def __init__(self, of: object, method: str, *, after: bool) -> None:
        self._of, self._method, self._after = of, method, after

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._of, name)
        if name != self._method:
            return real

        def dying(*arguments: Any, **named: Any) -> Any:
            if self._after:
                real(*arguments, **named)
            raise Killed

        return dying


@pytest.mark.parametrize(
    ("dies_at", "method", "after"),
    [
        pytest.param("ledger", "take_run", True, id="after the run was decided on"),
        pytest.param("airflow", "trigger", False, id="before the POST"),
        pytest.param("airflow", "trigger", True, id="after the POST"),
        pytest.param("ledger", "run_posted", True, id="after the run was noted as posted"),
    ],
)
def test_killed_around_the_post_each_row_is_in_one_run(
    ledger: Ledger, fake_airflow, config: Config, dies_at: str, method: str, after: bool
):
    from datetime import UTC, datetime

    from pipelines.ledger import EventRow, Incoming, Match, Position

    now = datetime.now(UTC)
    batch = []
    for o in range(7):
        position = Position("t", 0, o)
        event = EventRow(f"e{o}", "h", "R4", "Encounter", f"e{o}", "1", None, "written", f"p{o}", position, now, now)
        batch.append(Incoming(position, event, (Match(NOTE, "1", "post_visit"),)))
    ledger.record(batch)
    airflow = AirflowApi(fake_airflow.config, keep_dags=0.0)

    def life(ledger_: Any, airflow_: Any) -> Batches:
        return Batches(config.dispatcher, ledger_, airflow_, {NOTE}, Pressure(100), Holds(1, 1), Backoff(0.01, 0.01))

    parts: dict[str, Any] = {"ledger": ledger, "airflow": airflow}
    parts[dies_at] = DiesAt(parts[dies_at], method, after=after)
    with pytest.raises(Killed):
        life(parts["ledger"], parts["airflow"]).step()
    next_life = life(ledger, airflow)
    written = 0
    for _ in range(4):
        next_life.step()
        written += fake_airflow.work(ledger)
    airflow.close()
    assert written == 7
    assert sorted(conf["items"] for conf in fake_airflow.conf.values()) == [2, 5]
    assert ledger.account().work == {State.WRITTEN: 7}
