"""A hospital in small: the fakes, the scenario and a real ledger, and the verbs of a test."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Engine, text

from fhir_adapters.event import ClinicalEvent
from pipelines.config import Config
from pipelines.kafka.envelope import pack, unpack
from pipelines.ledger import Incoming, Ledger, Match, Position
from pipelines.models.fleet import Fleet
from pipelines.runner import carry as runner
from pipelines.runner.batch import Summary
from pipelines.runner.sources import Sources
from plugins.guarding import Guard
from plugins.lifecycle import Hooked
from plugins.manager import Loaded
from tests.runner.fakes import FakeFhir, FakeModel, FakePayloads
from tests.runner.watch import Watch


@dataclass
class House:
    """All of it, and the verbs of a test."""

    config: Config
    engine: Engine
    ledger: Ledger
    scenario: Watch = field(default_factory=Watch)
    fhir: FakeFhir = field(default_factory=FakeFhir)
    model: FakeModel = field(default_factory=FakeModel)
    payloads: FakePayloads = field(default_factory=FakePayloads)
    installed: bool = True
    guards: tuple[Guard, ...] = ()
    knowledge: tuple[Any, ...] = ()
    hooks: tuple[Hooked, ...] = ()
    others: dict[str, FakeModel] = field(default_factory=dict)
    entered: int = 0
    summaries: list[Summary] = field(default_factory=list)

    def enter(
        self,
        value: float | str,
        *,
        patient: str = "p1",
        id_: str = "",
        version: str = "1",
        source: str = "ward",
        **more: Any,
    ) -> None:
        """A vital sign comes in, and is matched; `value` may be a JSON literal."""
        id_ = id_ or f"o{self.entered}"
        resource = {
            "resourceType": "Observation",
            "id": id_,
            "subject": {"reference": f"Patient/{patient}"},
            "encounter": {"reference": "Encounter/e1"},
            "valueQuantity": {"value": "<value>"},
            **more,
        }
        body = orjson.dumps(resource).replace(b'"<value>"', str(value).encode())
        updated = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.entered)
        event = ClinicalEvent(
            source, "R4", "Observation", id_, version, updated.isoformat(), f"Patient/{patient}", body
        )
        envelope = pack(event, salt="s", received_at=updated)
        position = Position("careloom.events", 0, self.entered)
        row = unpack(position, envelope.key, envelope.headers, int(updated.timestamp() * 1000))
        self.entered += 1
        self.payloads.bytes[row.event_id] = body
        self.ledger.record([Incoming(position, row, [Match("in_visit.watch", "1", "in_visit")])])

    def run(self) -> str:
        """The dispatcher decides on a run of what is ready."""
        run = self.ledger.take_run("in_visit.watch", 100)
        assert run is not None
        return run.run_id

    def carry(self, run_id: str = "") -> Summary:
        """A whole run; of what is ready where none is named."""
        run_id = run_id or self.run()

        async def go() -> Summary:
            fleet = Fleet(self.config.registry, {"fake": lambda model: self.others.get(model.name, self.model)})
            try:
                return await runner.carry_rows(
                    self.config,
                    self.ledger,
                    run_id,
                    loaded=Loaded(
                        {self.scenario.id: self.scenario} if self.installed else {},
                        guards=self.guards,
                        knowledge=self.knowledge,
                        hooks=self.hooks,
                    ),
                    payloads=self.payloads,
                    sources=Sources(self.config, lambda _: self.fhir),
                    fleet=fleet,
                )
            finally:
                await fleet.close()

        return self._noted(asyncio.run(go()))

    def wake(self) -> None:
        """Let every backoff be over."""
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE work SET not_before = now()"))

    def rows(self) -> list[Any]:
        with self.engine.begin() as connection:
            return list(connection.execute(text("SELECT * FROM work ORDER BY id")))

    def _noted(self, summary: Summary) -> Summary:
        self.summaries.append(summary)
        return summary
