"""The gateway's background work: the mark before the subscriptions, both as soon as the hospital is there."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from fhir_adapters.errors import FhirUnavailable
from pipelines.gateway import endpoints
from pipelines.gateway.event_numbers import EventNumbers
from pipelines.gateway.reconcile import Reconciler
from pipelines.gateway.submission import Submission
from pipelines.gateway.upkeep import Upkeep
from pipelines.ledger import Ledger


def test_a_hospital_that_is_down_is_subscribed_to_as_soon_as_it_is_up(
    make_config, broker, hospital, ledger_engine, caplog
) -> None:
    async def play() -> None:
        listener = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        source = {"base_url": "http://h/fhir", "subscription": "backport", "reconcile_every": 0.05}
        config = make_config(source, gateway={"port": port})
        servers = {"hospital": hospital}
        ledger = Ledger(ledger_engine)
        reconciler = Reconciler(config.sources, servers, ["Encounter"], ledger, Submission(config, broker))
        numbers = EventNumbers(ledger, reconciler.search_soon, reordering=0)
        upkeep = Upkeep(config, ["Encounter"], broker, servers, reconciler, numbers, ledger_engine)
        hospital.failure = FhirUnavailable("not up yet")
        work = asyncio.create_task(upkeep.run())
        await until(lambda: "not yet" in caplog.text)
        assert (hospital.subscribed, ledger.reconciled_until("hospital")) == ([], None)
        hospital.write("Encounter", "history", hospital.now - timedelta(hours=1))
        hospital.write("Encounter", "new", hospital.now + timedelta(seconds=1))
        hospital.failure = None
        await until(lambda: hospital.subscribed and broker.produced)
        assert hospital.subscribed == [(("Encounter",), f"http://127.0.0.1:{port}/fhir/hospital")]
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        listener.close()

    with caplog.at_level(logging.INFO):
        asyncio.run(play())
    assert broker.types == ["Encounter.written"]


def test_more_requests_than_there_is_room_for_are_told_to_come_again(make_gateway, nowhere, monkeypatch) -> None:
    monkeypatch.setattr(endpoints, "IN_FLIGHT", 0)
    answer = make_gateway(ledger=nowhere).send(b'{"resourceType":"Patient"}')
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["issue"][0]["code"] == "throttled"


async def until(condition) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)
