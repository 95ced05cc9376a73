"""The short form of `make chaos`: a few kills at every fail point, a little of each fault, all events accounted for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.fail_points import NAMES
from pipelines.stack import kafka

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

RUN = Path(__file__).with_name("run.py")

#: What CI has time for; `make chaos` does all of them.
CI = "kills,thrice,reorder,poison,refusals,dispatchers,paused,late,airflow,ledger,broker"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What every fault of the short form did."""
    if why := kafka.missing():
        pytest.skip(why)
    file = tmp_path_factory.mktemp("chaos") / "chaos.json"
    done = subprocess.run(
        [sys.executable, str(RUN), "--quick", "--kills", "1", "--only", CI, "--json", str(file)],
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )
    print(done.stdout)
    assert file.exists() and "Traceback" not in done.stderr, f"the run broke off: {done.stderr[-5000:]}"
    found: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))["outcomes"]
    return found


@pytest.mark.parametrize("figure", ["lost", "doubled", "wrong", "stale_writes", "unaccounted"])
def test_after_every_fault_this_is_zero(outcomes: list[dict[str, Any]], figure: str):
    assert {one["name"]: one["notes"] for one in outcomes if one[figure]} == {}


def test_every_fault_that_can_be_done_here_was_done_and_drained_by_itself(outcomes: list[dict[str, Any]]):
    done = [one for one in outcomes if one["skipped"] is None]
    assert len(done) >= 10
    assert [one["name"] for one in done if not one["injections"] or one["drained"] is None] == []


def test_every_fault_tells_how_long_recovery_took(outcomes: list[dict[str, Any]]):
    done = [one for one in outcomes if one["skipped"] is None]
    assert [one["name"] for one in done if one["recovery_p50"] is None or one["recovery_max"] is None] == []


def test_every_fail_point_was_deadly(outcomes: list[dict[str, Any]]):
    [kills] = [one for one in outcomes if one["name"] == "kill -9 at every fail point"]
    [fired] = [note for note in kills["notes"] if note.startswith("fired: ")]
    counts = dict(pair.split(" ") for pair in fired.removeprefix("fired: ").split(", "))
    assert set(counts) == NAMES
    assert min(map(int, counts.values())) >= 1
