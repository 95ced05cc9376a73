"""The telephone at the end of the way: who called, and what a dead man's switch makes of silence."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.fault_table import pager
from tests.fault_table.pager import WATCHDOG, Telephone


@pytest.fixture
def telephone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Telephone]:
    monkeypatch.setattr(pager, "SILENCE", 0.3)
    monkeypatch.setattr(pager, "_LOOK", 0.02)
    phone = Telephone()
    yield phone
    phone.close()


def heard(phone: Telephone, calls: int) -> list[bool]:
    end = time.monotonic() + 5
    while len(phone.calls) < calls and time.monotonic() < end:
        time.sleep(0.02)
    assert {(call.receiver, call.alert) for call in phone.calls} <= {("dead-mans-switch", WATCHDOG)}
    return [call.firing for call in phone.calls]


def test_a_dead_mans_switch_that_nobody_calls_any_more_calls_somebody_once(telephone: Telephone) -> None:
    time.sleep(0.5)
    assert telephone.calls == []  # it has never been called: there is no house yet
    telephone.ring("dead-mans-switch", {})
    assert heard(telephone, 1) == [True]
    assert telephone.silent
    time.sleep(0.5)
    telephone.ring("dead-mans-switch", {})
    assert heard(telephone, 2) == [True, False]
    assert not telephone.silent


def test_while_it_is_called_it_is_quiet(telephone: Telephone) -> None:
    for _ in range(5):
        telephone.ring("dead-mans-switch", {})
        time.sleep(0.1)
    assert telephone.calls == []
