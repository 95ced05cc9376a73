"""A hospital in small: a fake FHIR server, a fake model, a small scenario, and a real ledger to run them through."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import unquote

import orjson
import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from sqlalchemy import Engine, text

from fhir_adapters.drafts import DRAFT_SYSTEM, IDENTITY_TAG
from fhir_adapters.errors import FhirConflict, FhirNotFound, FhirServerError, FhirUnavailable
from fhir_adapters.event import ClinicalEvent
from fhir_adapters.fhir_answer import Found, Reading
from pipelines import runner
from pipelines.batch import Summary
from pipelines.config import Airflow, Config, LedgerDatabase, Model, Runner, Source
from pipelines.envelope import pack, unpack
from pipelines.errors import PayloadGone
from pipelines.ledger import EventRow, Incoming, Ledger, Match, Position
from pipelines.models.fleet import Fleet
from pipelines.sources import Sources
from plugins.guarding import Guard
from plugins.lifecycle import Hooked
from plugins.manager import Loaded
from plugins.model_backend import ChatAnswer, ChatRequest
from plugins.scenario import (
    Case,
    Draft,
    Fact,
    Finding,
    Prompt,
    RecordQuery,
    Risk,
    Scenario,
    Severity,
    Stage,
    Statement,
    Text,
    Trigger,
)

BASE = "http://hospital.test/fhir"


class WatchAnswer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reasons: Annotated[tuple[Statement, ...], Field(max_length=3)]


class Watch(Scenario[WatchAnswer]):
    """Looks at a vital sign; above 100 it is a red flag, whatever a model says."""

    id: ClassVar[str] = "in_visit.watch"
    version: ClassVar[str] = "1"
    title: ClassVar[Text] = Text("观察", "Watch")
    stage: ClassVar[Stage] = Stage.IN_VISIT
    risk: ClassVar[Risk] = Risk.C
    triggers: ClassVar[tuple[Trigger, ...]] = (Trigger("Observation"),)
    record: ClassVar[tuple[RecordQuery, ...]] = (
        RecordQuery("problems", "Condition", {"patient": "{patient}"}, cap=2, sort="-recorded-date"),
        RecordQuery(
            "notes", "DocumentReference", {"encounter": "{encounter}"}, window=timedelta(days=2), date_param="date"
        ),
    )
    output_model: ClassVar[type[BaseModel]] = WatchAnswer
    deadline: ClassVar[timedelta] = timedelta(minutes=1)
    prompt_version: ClassVar[str] = "watch-1"

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.cases: list[Case] = []

    def prompt(self, case: Case) -> Prompt:
        self.cases.append(case)
        value = case.trigger["valueQuantity"]["value"]
        return Prompt("Say why.", [Fact(f"Observation/{case.trigger['id']}", f"pulse {value}")])

    def rules(self, case: Case) -> Sequence[Finding]:
        if self.broken == "rules":
            raise ValueError(f"could not read {case.trigger}")
        if case.trigger["valueQuantity"]["value"] <= 100:
            return ()
        source = f"Observation/{case.trigger['id']}"
        return [Finding("fast-pulse", Severity.RED_FLAG, Text("脉快", "fast pulse"), (source,), "house rule")]

    def rule_drafts(self, case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
        flag = {"resourceType": "Flag", "status": "active", "code": {"text": "fast pulse"}, **_about(case)}
        return [Draft("flag", flag, findings[0].sources)]

    def drafts(self, case: Case, answer: WatchAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        if self.broken == "nul":
            return [Draft("odd", {"resourceType": "Flag", "code": {"text": "a\u0000b"}, **_about(case)}, ())]
        resource = {
            "resourceType": "RiskAssessment",
            "status": "preliminary",
            "performer": {"reference": "urn:careloom:device"},
            "note": [{"text": reason.text} for reason in answer.reasons] or [{"text": "no reason"}],
            **({"basis": [{"reference": "urn:careloom:draft:flag"}]} if _red(findings) else {}),
            **_about(case),
        }
        return [Draft("risk", resource, (f"Observation/{case.trigger['id']}",))]


def _red(findings: Sequence[Finding]) -> bool:
    return any(finding.severity is Severity.RED_FLAG for finding in findings)


def _about(case: Case) -> dict[str, Any]:
    return {"subject": {"reference": case.trigger["subject"]["reference"]}}


class FakeFhir:
    """Reads, searches by patient, and conditional creates in transactions; each can be told to fail."""

    base_url = BASE

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {}
        self.conditions: dict[str, list[str]] = {}
        self.searches: list[tuple[str, dict[str, str]]] = []
        self.reads: list[str] = []
        self.transactions: list[Mapping[str, Any]] = []
        self.found: dict[str, list[dict[str, Any]]] = {}
        self.truncated: set[str] = set()
        self.failures: list[FhirServerError] = []
        self.refusals: list[FhirServerError] = []  # of transactions alone
        self.lose_answer = False
        self.lenient = False
        self.before_transaction: Callable[[], None] = lambda: None

    def put(self, resource: dict[str, Any]) -> None:
        self.resources[f"{resource['resourceType']}/{resource['id']}"] = resource

    def written(self, kind: str) -> list[dict[str, Any]]:
        """What careloom wrote of one type."""
        return [r for reference, r in self.resources.items() if reference.startswith(f"{kind}/new-")]

    async def read(self, resource_type: str, resource_id: str) -> Reading:
        self._fail()
        reference = f"{resource_type}/{resource_id}"
        self.reads.append(reference)
        if reference not in self.resources:
            raise FhirNotFound(f"GET {resource_type}: 404", status=404)
        return _reading(self.resources[reference])

    async def search(self, resource_type: str, params: Any = (), *, cap: int = 1000) -> Found:
        self._fail()
        self.searches.append((resource_type, dict(params)))
        found = self.found.get(resource_type, [])
        return Found(tuple(_reading(r) for r in found[:cap]), len(found) > cap)

    async def transaction(self, bundle: Mapping[str, Any]) -> dict[str, Any]:
        self.before_transaction()
        self._fail()
        if self.refusals:
            raise self.refusals.pop(0)
        self.transactions.append(bundle)
        places: dict[str, str] = {}
        answers = []
        conditions = [unquote(entry["request"].get("ifNoneExist", "")) for entry in bundle["entry"]]
        if not self.lenient and any(len(self.conditions.get(condition, ())) > 1 for condition in conditions):
            raise FhirConflict("POST Bundle: 412 (multiple-matches)", status=412)
        for entry, condition in zip(bundle["entry"], conditions, strict=True):
            kind = entry["resource"]["resourceType"]
            there = self.conditions.get(condition, [])
            known = bool(there)
            reference = there[0] if there else f"{kind}/new-{len(self.resources)}"
            if not known:
                for tag in _tags(entry["resource"]) or [condition]:
                    self.conditions.setdefault(tag, []).append(reference)
            places[entry["fullUrl"]] = reference
            answers.append(
                {"response": {"status": "200 OK" if known else "201 Created", "location": f"{reference}/_history/1"}}
            )
            if not known:
                self.resources[reference] = entry["resource"]
        for reference in places.values():
            self.resources[reference] = _resolved(self.resources[reference], places)
        if self.lose_answer:
            self.lose_answer = False
            raise FhirUnavailable("POST Bundle: no answer (ReadTimeout)")
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}

    async def aclose(self) -> None:
        pass

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


def _tags(resource: dict[str, Any]) -> list[str]:
    """The conditions that a resource satisfies, of those that careloom asks."""
    tags = [f"_tag={tag['system']}|{tag['code']}" for tag in resource.get("meta", {}).get("tag", ())]
    return [tag for tag in tags if tag.startswith((f"_tag={DRAFT_SYSTEM}|", f"_tag={IDENTITY_TAG}|"))]


def _reading(resource: dict[str, Any]) -> Reading:
    return Reading(resource, orjson.dumps(resource), "1")


def _resolved(resource: dict[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    whole = json.dumps(resource)
    for url, reference in places.items():
        whole = whole.replace(f'"{url}"', f'"{reference}"')
    resolved: dict[str, Any] = json.loads(whole)
    return resolved


class FakeModel:
    """Says what the test wants it to: an answer's text, a whole ChatAnswer, or an exception."""

    def __init__(self) -> None:
        self.says: Callable[[ChatRequest], str | ChatAnswer | Exception] = lambda _: _answer("pulse is high", "R1")
        self.asked: list[ChatRequest] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        self.asked.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0.01)
            said = self.says(request)
        finally:
            self.in_flight -= 1
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, ChatAnswer) else ChatAnswer(said, "stop", 100, 20, 0.5, "fake-model")

    async def close(self) -> None:
        pass


def _answer(*reasons: str) -> str:
    pairs = zip(reasons[::2], reasons[1::2], strict=True)
    return json.dumps({"reasons": [{"text": said, "sources": [source]} for said, source in pairs]})


class FakePayloads:
    """The events' bytes in memory."""

    def __init__(self) -> None:
        self.bytes: dict[str, bytes] = {}
        self.expected: list[str] = []

    def expect(self, events: Any) -> None:
        self.expected += [event.event_id for event in events]

    def has(self, event: EventRow) -> bool:
        return False

    def get(self, event: EventRow) -> bytes:
        if event.event_id not in self.bytes:
            raise PayloadGone("careloom.events[0]@0: its offset is no longer in the topic")
        return self.bytes[event.event_id]

    def forget(self) -> None:
        self.expected.append("forgotten")

    def close(self) -> None:
        pass


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


@pytest.fixture
def answer() -> Callable[..., str]:
    """`answer("text", "R1", ...)`: a model's text with those statements."""
    return _answer


@pytest.fixture
def house(ledger_url: str, ledger_engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[House]:
    caplog.set_level(logging.DEBUG)
    config = Config(
        state_dir=tmp_path,
        locale="en",
        patient_salt=SecretStr("s"),
        sources=(
            Source(name="ward", fhir_version="R4", base_url=BASE, token=SecretStr("t")),
            Source(name="one-way", fhir_version="R4", token=SecretStr("t")),
        ),
        ledger=LedgerDatabase(url=SecretStr(ledger_url)),
        airflow=Airflow(password=SecretStr("p")),
        model=Model(name="fake-model", kind="fake", version="7", registration_number="备案-1"),
        runner=Runner(lease=30, stay=0),
    )
    # no test outlasts a backoff, on however slow a machine: `wake` ends them
    made = House(config, ledger_engine, Ledger(ledger_engine, max_attempts=3, backoff=30))
    made.fhir.put({"resourceType": "Patient", "id": "p1", "gender": "female"})
    yield made
    assert made.ledger.account().unaccounted == 0


@pytest.fixture
def models(house: House) -> Callable[..., dict[str, FakeModel]]:
    """`models("a", "b", routing={...})` configures fakes of these names; returns name -> fake."""

    def make(*names: str, routing: Mapping[str, Any], **more: Any) -> dict[str, FakeModel]:
        entries = tuple(Model(name=name, kind="fake", version=f"v-{name}", **more) for name in names)
        house.config = Config.model_validate(
            {**{k: getattr(house.config, k) for k in Config.model_fields}, "models": entries,
             "routing": routing}
        )  # fmt: skip
        house.others = {name: FakeModel() for name in names}
        return dict(house.others)

    return make
