"""What `make scale-out` calls a failure."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.scale_out.run import Report, table

GOOD = Report(
    ran={"executor": "CeleryExecutor"},
    events=10,
    lost=0,
    doubled=0,
    unaccounted=0,
    drained=True,
    states={"written": 10},
    tasks={"worker-1": 2, "worker-2": 2},
    dispatchers={
        "dispatcher": {"records": 5.0, "runs": 1.0, "events": 5.0},
        "dispatcher-2": {"records": 5.0, "runs": 1.0, "events": 5.0},
    },
    killed={"worker-1": 3},
    seconds=1.0,
)


def judged(**changes: object) -> list[str]:
    report = replace(GOOD, failures=[], **changes)
    report.judge()
    return report.failures


def test_nothing_fails_when_all_was_written_once_and_shared() -> None:
    assert judged() == []


@pytest.mark.parametrize("what", ["lost", "doubled", "unaccounted"])
def test_one_event_lost_doubled_or_unaccounted_is_a_failure(what: str) -> None:
    assert judged(**{what: 1}) == [f"1 {what}"]


def test_a_backlog_that_does_not_drain_is_a_failure() -> None:
    assert judged(drained=False, states={"waiting": 3}) == ["not drained: {'waiting': 3}"]


def test_a_worker_or_a_dispatcher_without_a_share_is_a_failure() -> None:
    assert judged(tasks={"worker-1": 4}) == ["worker-2 ran no task"]
    idle = {**GOOD.dispatchers, "dispatcher-2": {"records": 0.0, "runs": 0.0, "events": 0.0}}
    assert judged(dispatchers=idle) == ["dispatcher-2 consumed no record", "dispatcher-2 made no run"]


def test_the_table_shows_each_share() -> None:
    shown = table(GOOD)
    assert "tasks run by worker-2" in shown
    assert "5 records, 1 runs, 5 events" in shown
