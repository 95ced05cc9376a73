"""The days before the faults, as Prometheus itself reads them."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.fault_table.flow import EVERY, EXAM, NOTE
from tests.fault_table.history import openmetrics, remember


def test_prometheus_takes_the_history_and_finds_every_event_of_it_in_time(tmp_path: Path) -> None:
    remember(tmp_path / "data", {NOTE: EVERY, EXAM: 3600.0}, scale=0.25)
    (tmp_path / "data" / "wal").mkdir()  # Prometheus makes it when it starts; without one promtool reads nothing
    dumped = subprocess.run(
        ["promtool", "tsdb", "dump", str(tmp_path / "data")], check=True, capture_output=True, text=True, timeout=60
    ).stdout.splitlines()
    last: dict[tuple[str, str], float] = {}
    for line in dumped:
        scenario = next(name for name in (NOTE, EXAM) if f'scenario="{name}"' in line)
        outcome = "missed" if 'outcome="missed"' in line else "met"
        last[scenario, outcome] = max(float(line.split()[-2]), last.get((scenario, outcome), 0.0))
    events = {NOTE: 18 * 3600 / EVERY, EXAM: 18.0}
    met, missed = {(s, "met"): n for s, n in events.items()}, {(s, "missed"): 0.0 for s in events}
    assert last == pytest.approx(met | missed)


def test_it_ends_before_the_faults_begin() -> None:
    now = time.time()
    lines = openmetrics({NOTE: EVERY}, until=now, scale=1.0).splitlines()
    times = [float(line.split()[-1]) for line in lines if not line.startswith("#")]
    assert (round(max(times)), round(max(times) - min(times))) == (round(now), 3 * 86_400)
