"""Reconciling: what was never notified is found once, history is left alone, and the mark moves only after the ack."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from fhir_adapters.errors import FhirUnavailable
from fhir_adapters.notification import Pointer
from monitoring.metrics import Way
from pipelines.gateway.reconcile import NotBegun, Reconciler
from pipelines.gateway.single_owner import SingleOwner
from pipelines.gateway.submission import Submission
from pipelines.kafka.envelope import unpack
from pipelines.kafka.topics import BrokerUnavailable
from pipelines.ledger import Incoming, Ledger, Position

AIAST = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "AIAST"}
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def ledger(ledger_engine) -> Ledger:
    return Ledger(ledger_engine)


@pytest.fixture
def make_reconciler(make_config, broker, hospital, ledger):
    def make(**source) -> Reconciler:
        config = make_config({"base_url": "http://h/fhir", **source})
        servers = {"hospital": hospital}
        return Reconciler(config.sources, servers, ["Encounter"], ledger, Submission(config, broker))

    return make


@pytest.fixture
def reconciler(make_reconciler) -> Reconciler:
    return make_reconciler()


def dispatch(broker, ledger) -> None:
    """What the dispatcher does with everything produced so far."""
    incoming = []
    for offset, envelope in enumerate(broker.produced):
        position = Position("careloom.events", 0, offset)
        incoming.append(Incoming(position, unpack(position, envelope.key, envelope.headers, 0)))
    ledger.record(incoming)


def test_what_happened_before_the_first_start_is_history(reconciler, hospital, broker) -> None:
    async def play() -> None:
        hospital.write("Encounter", "before", NOON - SECOND)
        await reconciler.begin("hospital")
        hospital.write("Encounter", "after", NOON + SECOND)
        assert await reconciler.search("hospital") == 1
        await reconciler.begin("hospital")

    asyncio.run(play())
    assert broker.types == ["Encounter.written"]
    assert b"after" in broker.produced[0].value


def test_what_was_never_notified_is_found_once(make_reconciler, hospital, broker, ledger) -> None:
    async def play(reconciler) -> int:
        await reconciler.begin("hospital")
        return await reconciler.search("hospital")

    first = make_reconciler()
    asyncio.run(first.begin("hospital"))
    hospital.write("Encounter", "e1", NOON + SECOND)
    hospital.write("Patient", "p1", NOON + SECOND)  # no scenario waits for it
    assert asyncio.run(play(first)) == 1
    assert asyncio.run(play(first)) == 0, "this process remembers it, though no dispatcher has seen it"
    dispatch(broker, ledger)
    assert asyncio.run(play(make_reconciler())) == 0, "the ledger knows it"
    hospital.write("Encounter", "e1", NOON + 2 * SECOND)
    assert asyncio.run(play(make_reconciler())) == 1, "another version is another event"


def test_what_kafka_lost_is_found_again_when_somebody_sets_the_mark_back(
    reconciler, hospital, broker, ledger, ledger_engine
) -> None:
    async def play() -> None:
        await reconciler.begin("hospital")
        hospital.write("Encounter", "kept", NOON + SECOND)
        hospital.now = NOON + 60 * SECOND
        assert await reconciler.search("hospital") == 1
        dispatch(broker, ledger)
        hospital.write("Encounter", "lost", NOON + 61 * SECOND)
        hospital.now = NOON + 120 * SECOND
        assert await reconciler.search("hospital") == 1
        assert await reconciler.search("hospital") == 0
        with ledger_engine.begin() as connection:
            connection.execute(text("UPDATE reconciled SET until = until - interval '10 minutes'"))
        assert await reconciler.search("hospital") == 1

    asyncio.run(play())
    assert [b"kept" in envelope.value for envelope in broker.produced] == [True, False, False]


def test_what_was_committed_late_is_found_by_the_overlap(reconciler, hospital, broker) -> None:
    async def play() -> None:
        await reconciler.begin("hospital")
        hospital.now = NOON + 60 * SECOND
        await reconciler.search("hospital")
        hospital.write("Encounter", "late", NOON + 55 * SECOND)
        hospital.now = NOON + 90 * SECOND
        assert await reconciler.search("hospital") == 1

    asyncio.run(play())
    assert [since for _, since in hospital.searches] == [NOON, NOON + 50 * SECOND]


@pytest.mark.parametrize("culprit", ["broker", "hospital"])
def test_the_mark_stays_where_it_is_when_a_search_fails(culprit, reconciler, hospital, broker, ledger) -> None:
    async def play() -> None:
        await reconciler.begin("hospital")
        mark = ledger.reconciled_until("hospital")
        hospital.write("Encounter", "e1", NOON + SECOND)
        hospital.now = NOON + 60 * SECOND
        broker.failure = BrokerUnavailable("down") if culprit == "broker" else None
        hospital.failure = FhirUnavailable("down") if culprit == "hospital" else None
        with pytest.raises((BrokerUnavailable, FhirUnavailable)):
            await reconciler.search("hospital")
        assert ledger.reconciled_until("hospital") == mark
        broker.failure = hospital.failure = None
        assert await reconciler.search("hospital") == 1
        assert ledger.reconciled_until("hospital") == NOON + 60 * SECOND

    asyncio.run(play())


def test_a_source_without_a_start_is_not_searched(reconciler, hospital) -> None:
    with pytest.raises(NotBegun):
        asyncio.run(reconciler.search("hospital"))
    assert hospital.searches == []


def test_our_own_drafts_found_by_a_search_start_nothing(reconciler, hospital, broker) -> None:
    async def play() -> int:
        await reconciler.begin("hospital")
        hospital.write("Encounter", "drafted", NOON + SECOND, meta={"security": [AIAST]})
        return await reconciler.search("hospital")

    assert asyncio.run(play()) == 0
    assert broker.produced == []


def test_an_invalid_resource_holds_back_no_other(make_reconciler, hospital, broker) -> None:
    reconciler = make_reconciler(validation="reject")

    async def play() -> int:
        await reconciler.begin("hospital")
        hospital.write("Encounter", "bad", NOON + SECOND, status="banana")
        hospital.write("Encounter", "good", NOON + SECOND, status="finished", **{"class": {"code": "IMP"}})
        return await reconciler.search("hospital")

    assert asyncio.run(play()) == 1
    assert b"good" in broker.produced[0].value


def test_all_who_ask_while_a_search_is_under_way_share_the_next_one(reconciler, hospital) -> None:
    async def play() -> None:
        await reconciler.begin("hospital")
        going, may_go = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            going.set()
            await may_go.wait()

        hospital.before_search = wait
        first = asyncio.create_task(reconciler.search("hospital"))
        await going.wait()
        others = [asyncio.create_task(reconciler.search("hospital")) for _ in range(5)]
        await asyncio.sleep(0)
        may_go.set()
        await asyncio.gather(first, *others)

    asyncio.run(play())
    assert len(hospital.searches) == 2


def test_what_is_being_notified_while_it_is_searched_is_not_produced_twice(
    make_config, hospital, broker, ledger
) -> None:
    config = make_config({"base_url": "http://h/fhir"})
    submission = Submission(config, broker)
    reconciler = Reconciler(config.sources, {"hospital": hospital}, ["Encounter"], ledger, submission)

    async def play() -> None:
        await reconciler.begin("hospital")
        hospital.write("Encounter", "e1", NOON + SECOND)
        acknowledged = asyncio.Event()
        broker.before_ack = acknowledged.wait
        events = await hospital.read([Pointer("Encounter", "e1")])
        notified = submission.submit(config.sources[0], events, way=Way.SUBSCRIPTION, received_at=NOON)
        notifying = asyncio.create_task(notified)
        searching = asyncio.create_task(reconciler.search("hospital"))
        while not hospital.searches:
            await asyncio.sleep(0.01)
        acknowledged.set()
        assert (await notifying, await searching) == (1, 0)

    asyncio.run(play())
    assert len(broker.produced) == 1


def test_what_the_broker_forgot_is_found_again(reconciler, hospital, broker) -> None:
    async def play() -> int:
        await reconciler.begin("hospital")
        hospital.write("Encounter", "e1", NOON + SECOND)
        await reconciler.search("hospital")
        broker.produced.clear()
        broker.generation += 1
        return await reconciler.search("hospital")

    assert asyncio.run(play()) == 1


def test_an_empty_notification_is_answered_after_its_search(make_gateway, hospital, broker, ledger_engine) -> None:
    gateway = make_gateway({"base_url": "http://h/fhir"}, servers={"hospital": hospital}, ledger=ledger_engine)
    ping = {"body": b"", "content_type": "application/x-www-form-urlencoded"}
    assert gateway.send(**ping).status_code == 503, "no start yet: where to search from is not known"
    Ledger(ledger_engine).set_reconciled_until("hospital", NOON)
    hospital.write("Encounter", "e1", NOON + SECOND)
    assert gateway.send(**ping).status_code == 204
    assert broker.types == ["Encounter.written"]
    hospital.failure = FhirUnavailable("down")
    assert gateway.send(**ping).status_code == 503


def test_one_gateway_owns_at_a_time_and_another_takes_over(ledger_engine) -> None:
    with SingleOwner(ledger_engine, "reconcile.a") as first:
        second, elsewhere = SingleOwner(ledger_engine, "reconcile.a"), SingleOwner(ledger_engine, "reconcile.b")
        assert (first.held(), first.held(), second.held(), elsewhere.held()) == (True, True, False, True)
        first.release()
        assert (second.held(), first.held()) == (True, False)
        second.release()
        elsewhere.release()
