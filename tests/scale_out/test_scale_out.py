"""`make scale-out`: two workers and two dispatchers share the work, and the death of one of each loses nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PYTHON = PROJECT / ".careloom" / "venvs" / "scale-out" / "bin" / "python"


@pytest.mark.long
@pytest.mark.end_to_end
@pytest.mark.timeout(1200)
def test_two_workers_and_two_dispatchers_share_the_work_and_lose_nothing_when_one_of_each_dies() -> None:
    if not PYTHON.exists():
        pytest.skip("its environment is not there: `make scale-out` sets it up")
    command = [str(PYTHON), "-m", "tests.scale_out.run", "--events", "150"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=1100)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["lost"], report["doubled"], report["unaccounted"]) == (0, 0, 0)
    assert report["events"] == report["states"]["written"] == 150
    assert set(report["killed"]) == {"worker-1", "dispatcher"}
