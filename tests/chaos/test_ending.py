"""A chaos run that is stopped says how far it came: what was not done is named, and it is no success."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def chaos(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def options(**more: Any) -> Any:
    from options import Options

    return Options(**{"quick": True, "kills": 2, "seconds": 1.0, "seed": 4, **more})


def killed(plan: str, role: str) -> Any:
    return SimpleNamespace(role=role, plan=plan, status=-signal.SIGKILL)


def test_each_spot_is_deadly_as_often_as_asked_and_then_no_more():
    from kills import SPOTS, Killer

    killer = Killer(SimpleNamespace(), 2, seed=1)
    for role, spots in SPOTS.items():
        for _ in range(200):
            if plan := killer.plan(role):
                killer.ended(killed(plan, role))
        assert {spot: killer.fired[spot] for spot in spots} == dict.fromkeys(spots, 2)
    assert killer.left == 0


def test_a_process_that_was_killed_otherwise_or_ended_by_itself_does_not_count():
    from kills import Killer

    killer = Killer(SimpleNamespace(), 1, seed=1)
    before = killer.left
    killer.ended(killed("", "carry"))
    killer.ended(SimpleNamespace(role="carry", plan="runner.sent@1", status=0))
    assert killer.left == before


def test_what_was_not_done_is_named_and_is_no_success():
    from account import Outcome
    from kills import Killer

    killer = Killer(SimpleNamespace(), 1, seed=1)
    killer.ended(killed("runner.sent@1", "carry"))
    assert any("were not done" in note for note in killer.notes({"carry": [1.0]}))
    assert Outcome("kills", injections=1).good
    assert not Outcome("kills", injections=1, short=killer.left).good


def test_a_signal_or_the_limit_ends_what_is_under_way_and_a_second_signal_everything():
    from run import _end_when_asked

    asked = options()
    assert asked.goes_on(time.monotonic())
    assert not asked.goes_on(time.monotonic() - asked.limit)
    _end_when_asked(asked)
    signal.raise_signal(signal.SIGINT)
    assert asked.over.is_set()
    assert not asked.goes_on(time.monotonic())
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def test_figures_are_whole_in_their_file_after_each_fault(tmp_path: Path):
    import json

    from account import Outcome
    from run import _keep

    file = tmp_path / "chaos.json"
    _keep(file, [Outcome("a", injections=1)])
    _keep(file, [Outcome("a", injections=1), Outcome("b", injections=2, progress=[1.0, 3.0])])
    outcomes = json.loads(file.read_text("utf-8"))["outcomes"]
    assert [one["name"] for one in outcomes] == ["a", "b"]
    figures = ("injections", "lost", "doubled", "wrong", "stale_writes", "unaccounted", "recovery_p50", "recovery_max")
    assert [outcomes[1][figure] for figure in figures] == [2, 0, 0, 0, 0, 0, 2.0, 3.0]
    assert list(tmp_path.iterdir()) == [file]


def test_every_fault_of_the_list_is_there():
    from faults import FAULTS

    assert {fault.name for fault in FAULTS} == {
        "kills", "thrice", "reorder", "poison", "model", "refusals", "fhir", "dispatchers", "paused", "late",
        "airflow", "ledger", "broker", "clock", "standing", "disk", "brokers", "load", "real",
    }  # fmt: skip


def test_memory_is_told_by_thirds_and_metrics_are_summed():
    from load import _thirds, _value

    assert _thirds([1, 2, 3, 9, 5, 6, 7]) == "3/9/7"
    assert _thirds([4]) == "4"
    page = ['a_lag{p="1"} 3.0', 'a_lag{p="2"} 4.0', "a_lag_other 9", "held 1.0"]
    assert (_value(page, "a_lag"), _value(page, "held"), _value(page, "missing")) == (7.0, 1.0, 0)
