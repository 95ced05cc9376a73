"""Event numbers: a jump is counted and searched for; a ledger that is down refuses no event."""

from __future__ import annotations

import asyncio
import logging

import pytest

from fhir_adapters.notification import Announced, Kind, Notification
from monitoring.metrics import EVENT_NUMBER_GAPS, EVENTS_MISSED
from pipelines.gateway.event_numbers import EventNumbers
from pipelines.ledger import Ledger


def event(*numbers: int) -> Notification:
    announced = tuple(Announced(number, None, f"Encounter/e{number}") for number in numbers)
    return Notification(Kind.EVENT, "Subscription/s1", events_since_start=max(numbers), announced=announced)


def heartbeat(number: int, kind: Kind = Kind.HEARTBEAT) -> Notification:
    return Notification(kind, "Subscription/s1", events_since_start=number)


def play(ledger: Ledger, *notifications: Notification, together: bool = False) -> list[str]:
    """The sources that had to be searched, in order; `together`: all came within a moment."""
    searched: list[str] = []

    async def run() -> None:
        numbers = EventNumbers(ledger, searched.append, reordering=0)
        work = asyncio.create_task(numbers.run())
        for notification in notifications:
            numbers.note("hospital", notification)
            if not together:
                await numbers.settled()
        await numbers.settled()
        work.cancel()

    asyncio.run(run())
    return searched


@pytest.mark.parametrize(
    ("notifications", "missed"),
    [
        ([heartbeat(0, Kind.HANDSHAKE), event(1), event(2), event(3)], 0),
        ([heartbeat(0, Kind.HANDSHAKE), event(2)], 1),
        ([event(1), event(5)], 3),
        ([event(1, 2), event(3, 4)], 0),
        ([event(1), event(2, 4)], 1),
        ([event(3), event(2), event(3)], 0),
        ([event(1), heartbeat(1)], 0),
        ([event(1), heartbeat(2)], 1),
        ([event(1), heartbeat(3), event(4)], 2),
        ([event(7), heartbeat(0, Kind.HANDSHAKE), event(8)], 0),
        ([event(7), heartbeat(9, Kind.HANDSHAKE)], 2),
        ([event(40)], 0),
        ([event(9), event(1), event(2)], 0),
        ([heartbeat(4), event(5)], 0),
    ],
)
def test_a_jump_is_counted_and_searched_for(notifications, missed, ledger_engine) -> None:
    gaps, events = EVENT_NUMBER_GAPS.labels("hospital"), EVENTS_MISSED.labels("hospital")
    before = gaps._value.get(), events._value.get()
    searched = play(Ledger(ledger_engine), *notifications)
    assert searched == (["hospital"] if missed else [])
    assert (gaps._value.get() - before[0], events._value.get() - before[1]) == (bool(missed), missed)


def test_what_overtakes_within_a_moment_is_no_gap(ledger_engine) -> None:
    overtaking = [event(number) for number in (2, 1, 5, 3, 4)] + [heartbeat(5)]
    assert play(Ledger(ledger_engine), *overtaking, together=True) == []


def test_a_ledger_that_is_down_loses_a_number_and_nothing_else(nowhere, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        assert play(Ledger(nowhere), event(1), event(5)) == []
    assert "not noted" in caplog.text


def test_a_subscription_in_error_is_noted(ledger_engine, caplog) -> None:
    with caplog.at_level(logging.WARNING):
        play(Ledger(ledger_engine), Notification(Kind.HEARTBEAT, "Subscription/s1", status="error"))
    assert "in error" in caplog.text


def test_a_gap_between_two_requests_is_repaired_by_a_search(make_gateway, hospital, broker, ledger_engine) -> None:
    from datetime import UTC, datetime, timedelta

    noon = datetime(2026, 11, 22, 12, tzinfo=UTC)
    ledger = Ledger(ledger_engine)
    ledger.set_reconciled_until("hospital", noon)
    for number in (1, 2, 3):
        hospital.write("Encounter", f"e{number}", noon + timedelta(seconds=number))
    gateway = make_gateway({"base_url": "http://h/fhir"}, servers={"hospital": hospital}, ledger=ledger_engine)
    for number in (1, 3):
        assert gateway.send(notification(number)).status_code == 204
    wait_for(lambda: len(set(broker.ids)) == 3)
    assert len(broker.ids) == 3, "what was notified is not produced again by the search"
    [row] = ledger.subscription_gaps()
    assert (row.last_event_number, row.gaps, row.missed_events) == (3, 1, 1)


def wait_for(condition, seconds: float = 10) -> None:
    import time

    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, "it did not come"
        time.sleep(0.01)


def notification(number: int) -> bytes:
    import json

    parameters = [
        {"name": "subscription", "valueReference": {"reference": "http://h/fhir/Subscription/s1"}},
        {"name": "status", "valueCode": "active"},
        {"name": "type", "valueCode": "event-notification"},
        {"name": "events-since-subscription-start", "valueString": str(number)},
        {
            "name": "notification-event",
            "part": [
                {"name": "event-number", "valueString": str(number)},
                {"name": "focus", "valueReference": {"reference": f"http://h/fhir/Encounter/e{number}"}},
            ],
        },
    ]
    status = {"resourceType": "Parameters", "id": "x", "parameter": parameters}
    return json.dumps({"resourceType": "Bundle", "type": "history", "entry": [{"resource": status}]}).encode()
