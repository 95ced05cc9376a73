"""What the gateway's tests share: a configuration, a broker and a hospital of memory, and the gateway between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from sqlalchemy import Engine
from starlette.testclient import TestClient

from fhir_adapters.errors import FhirServerError
from fhir_adapters.event import ClinicalEvent
from fhir_adapters.notification import Pointer
from fhir_adapters.resource_event import Sender, deleted, written
from pipelines.config import Config
from pipelines.gateway import create_app
from pipelines.kafka.envelope import Envelope
from pipelines.ledger import Position, engine

TOKEN = "a-token-for-tests"
NOWHERE = "postgresql://nobody@127.0.0.1:9/nothing"


class MemoryBroker:
    """A `Sink` that acknowledges at once, unless `failure` is set or `before_ack` awaits something."""

    def __init__(self) -> None:
        self.produced: list[Envelope] = []
        self.failure: Exception | None = None
        self.before_ack: Callable[[], Any] | None = None
        self.connected = True
        self.generation = 1

    async def connect(self) -> None:
        """Always connected."""

    async def produce(self, envelopes: Sequence[Envelope]) -> list[Position]:
        if self.before_ack is not None:
            await self.before_ack()
        if self.failure is not None:
            raise self.failure
        self.produced += envelopes
        return [Position("careloom.events", 0, i) for i in range(len(envelopes))]

    async def close(self) -> None:
        """Nothing to close."""

    @property
    def ids(self) -> list[str]:
        return [dict(envelope.headers)["ce_id"].decode() for envelope in self.produced]

    @property
    def types(self) -> list[str]:
        return [dict(envelope.headers)["ce_type"].decode().rpartition("fhir.")[2] for envelope in self.produced]


class MemoryHospital:
    """A `Hospital` whose resources are in a dictionary: (type, id) -> (written at, resource)."""

    def __init__(self, source: str = "hospital") -> None:
        self.sender = Sender(source, "R4")
        self.resources: dict[tuple[str, str], tuple[datetime, dict[str, Any]]] = {}
        self.now = datetime(2026, 11, 22, 12, tzinfo=UTC)
        self.failure: FhirServerError | None = None
        self.searches: list[tuple[str, datetime]] = []
        self.subscribed: list[tuple[tuple[str, ...], str]] = []
        self.before_search: Callable[[], Any] | None = None

    def write(self, kind: str, id_: str, at: datetime, **more: Any) -> None:
        before = self.resources.get((kind, id_))
        version = str(int(before[1]["meta"]["versionId"]) + 1) if before else "1"
        meta = {"versionId": version, "lastUpdated": at.isoformat().replace("+00:00", "Z"), **more.pop("meta", {})}
        self.resources[kind, id_] = at, {"resourceType": kind, "id": id_, "meta": meta, **more}

    async def read(self, pointers: Sequence[Pointer]) -> list[ClinicalEvent]:
        self._may_fail()
        return [
            self._event(self.resources[pointer.resource_type, pointer.resource_id][1])
            if (pointer.resource_type, pointer.resource_id) in self.resources
            else deleted(self.sender, pointer.resource_type, pointer.resource_id)
            for pointer in pointers
        ]

    async def changed_since(self, kind: str, since: datetime) -> AsyncIterator[tuple[list[ClinicalEvent], int]]:
        self.searches.append((kind, since))
        if self.before_search is not None:
            await self.before_search()
        self._may_fail()
        found = sorted((at, id_) for (type_, id_), (at, _) in self.resources.items() if type_ == kind and at >= since)
        yield [self._event(self.resources[kind, id_][1]) for _, id_ in found], 0

    async def time(self) -> datetime:
        self._may_fail()
        return self.now

    async def subscribe(self, types: Sequence[str], endpoint: str) -> Sequence[Any]:
        self._may_fail()
        self.subscribed.append((tuple(types), endpoint))
        return ()

    async def aclose(self) -> None:
        """Nothing to close."""

    def _may_fail(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _event(self, resource: dict[str, Any]) -> ClinicalEvent:
        return written(self.sender, resource, orjson.dumps(resource))


@pytest.fixture
def make_config() -> Callable[..., Config]:
    """A configuration with one R4 source "hospital" without a server; `source` and sections override."""

    def make(source: dict[str, Any] | None = None, **sections: Any) -> Config:
        base = {"name": "hospital", "fhir_version": "R4", "token": TOKEN, "subscription": "none"}
        return Config.model_validate(
            {
                "state_dir": ".",
                "patient_salt": "salt",
                "sources": [{**base, **(source or {})}],
                "ledger": {"url": NOWHERE},
                "airflow": {"password": "x"},
                "model": {"name": "m", "version": "1"},
                **sections,
            }
        )

    return make


@pytest.fixture
def broker() -> MemoryBroker:
    """A broker of memory."""
    return MemoryBroker()


@pytest.fixture
def hospital() -> MemoryHospital:
    """A FHIR server of memory."""
    return MemoryHospital()


@pytest.fixture
def nowhere() -> Iterator[Engine]:
    """An engine on a ledger that does not answer."""
    made = engine(NOWHERE)
    yield made
    made.dispose()


@pytest.fixture
def make_gateway(make_config: Callable[..., Config], broker: MemoryBroker) -> Iterator[Callable[..., SimpleNamespace]]:
    """Gateways without upkeep on the memory broker; each as `client`, `app`, `config` and `send`."""
    open_clients: list[TestClient] = []

    def make(
        source: dict[str, Any] | None = None, *, servers: Any = None, ledger: Engine | None = None, **more: Any
    ) -> SimpleNamespace:
        config = make_config(source, **more.pop("sections", {}))
        app = create_app(
            config, ["Encounter"], producer=broker, servers=servers or {}, ledger_engine=ledger, upkeep=False, **more
        )
        client = TestClient(app, raise_server_exceptions=True)
        client.__enter__()
        open_clients.append(client)

        def send(body: bytes | str = b"", method: str = "POST", path: str = "", **headers: str) -> Any:
            sent = {
                "authorization": f"Bearer {TOKEN}",
                "content-type": "application/fhir+json",
                **{name.replace("_", "-"): value for name, value in headers.items()},
            }
            return client.request(
                method, f"/fhir/hospital{path}", content=body, headers={k: v for k, v in sent.items() if v}
            )

        return SimpleNamespace(client=client, app=app, config=config, send=send, token=TOKEN)

    yield make
    for client in open_clients:
        client.__exit__(None, None, None)
