"""One row's way from its event to drafts in the outbox: payload, record, rules, red flags at once, model, guard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fhir_adapters.errors import FhirServerError
from fhir_adapters.provenance import Author, Origin
from pipelines.batch import Batch, Outcome, called, place
from pipelines.config import Config
from pipelines.context import parse
from pipelines.errors import ErrorClass, PayloadGone, StepFailed
from pipelines.fail_points import fail_point
from pipelines.guard import guarded
from pipelines.ledger.rows import Inference, WorkItem
from pipelines.ledger.store import Ledger
from pipelines.models.base import PRIORITIES, ChatAnswer, ChatRequest, ModelBackend
from pipelines.payloads import PayloadSource
from pipelines.sources import Sources
from pipelines.write_back import Outgoing, Part, failure, pack, referred, send
from plugins.prompting import chat, schema_for
from plugins.scenario import Case, Draft, Finding, Scenario, Severity

_log = logging.getLogger(__name__)

#: An answer that is none is asked for once more; sampled, since greedy decoding would only repeat it.
ASKED_AT_MOST = 2
_SECOND_TEMPERATURE = 0.4
#: Seconds until a row whose model is switched off looks again.
_LOOK_AGAIN = 15.0


@dataclass(frozen=True, slots=True)
class Said:
    """A guarded answer with what it cost, all questions together."""

    answer: Any
    cut: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    answered_at: datetime


class Inferring:
    """The step `infer` for one row at a time; many may be under way at once.

    Args:
        config: locale, model and limits.
        ledger: where rows are.
        batch: of the rows; asked right before something is written elsewhere.
        scenarios: id -> scenario, as installed.
        payloads: the events' bytes.
        sources: the hospitals' servers.
        model: the model server.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        batch: Batch,
        scenarios: Mapping[str, Scenario[Any]],
        payloads: PayloadSource,
        sources: Sources,
        model: ModelBackend,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._batch = batch
        self._scenarios = scenarios
        self._payloads = payloads
        self._one_reader = asyncio.Lock()
        self._sources = sources
        self._model = model

    async def __call__(self, item: WorkItem) -> Outcome:
        """Take one row from its event to its outbox.

        Raises:
            StepFailed: it did not get there; what was written at once stays written.
            LeaseLost: the row is another worker's.
        """
        scenario = self._scenarios.get(item.scenario)
        if scenario is None:
            raise StepFailed(
                ErrorClass.SCENARIO_MISSING, f"no scenario {item.scenario} is installed; install its plugin, or discard"
            )
        case = await self._case(item, scenario)
        with _of_scenario("rules"):
            findings = tuple(scenario.rules(case))
        written = await self._red_flags(item, scenario, case, findings)
        said = await self._said(item, scenario, case)
        fail_point("runner.asked")
        guarded_at = datetime.now(UTC)
        with _of_scenario("drafts"):
            drafts = tuple(scenario.drafts(case, said.answer, findings))
        if item.rules_written and referred(drafts):  # to what an earlier try has written: it is recognised, and named
            written = await self._send_rules(item, scenario, case, findings)
        outgoing = self._outgoing(item, scenario, findings, drafts, case, part="model", earlier=written)
        inference = Inference(
            drafts=pack(outgoing),
            times={"context_at": case.now, "answered_at": said.answered_at, "guarded_at": guarded_at},
            model=self._config.model.name,
            prompt_tokens=said.prompt_tokens,
            completion_tokens=said.completion_tokens,
            model_seconds=said.seconds,
            findings=len(findings),
            cut_statements=said.cut,
        )
        await called(self._ledger.inferred, item, inference)
        fail_point("runner.inferred")
        return Outcome.INFERRED

    async def _case(self, item: WorkItem, scenario: Scenario[Any]) -> Case:
        """The event's bytes and the part of the record that the scenario asks for."""
        server = self._sources.of(item.event.source)
        try:
            async with self._one_reader:
                payload = await asyncio.to_thread(self._payloads.get, item.event)
        except PayloadGone as error:
            raise StepFailed(ErrorClass.PAYLOAD_GONE, str(error)) from None
        trigger = parse(item.event, payload)
        try:
            filled = await server.context.fill(scenario, item.event, trigger)
        except FhirServerError as error:
            raise failure(error) from None
        if filled.dropped:
            _log.warning("work %d: %d resources that are not the patient's were left out", item.id, filled.dropped)
        return filled.case

    async def _red_flags(
        self, item: WorkItem, scenario: Scenario[Any], case: Case, findings: Sequence[Finding]
    ) -> Mapping[str, str]:
        """Write what cannot wait for a model; returns name -> "Type/id" of what was written in this try."""
        if item.rules_written or all(finding.severity is not Severity.RED_FLAG for finding in findings):
            return {}
        return await self._send_rules(item, scenario, case, findings)

    async def _send_rules(
        self, item: WorkItem, scenario: Scenario[Any], case: Case, findings: Sequence[Finding]
    ) -> Mapping[str, str]:
        """Write the drafts that rest on rules alone; those of an earlier try are recognised, and noted no more."""
        with _of_scenario("rule_drafts"):
            drafts = tuple(scenario.rule_drafts(case, findings))
        if not drafts:
            return {}
        outgoing = self._outgoing(item, scenario, findings, drafts, case, part="rules")
        pack(outgoing)  # refuses what cannot be written before it goes out
        server = self._sources.of(item.event.source)
        await self._batch.confirm(item)
        sent = await send(server.client, item.identity, outgoing)
        fail_point("runner.flagged")
        if not item.rules_written:
            await called(self._ledger.rules_written, item, sent.written)
        return sent.references

    async def _said(self, item: WorkItem, scenario: Scenario[Any], case: Case) -> Said:
        """The model's answer, guarded; one that is none is asked for once more."""
        name = self._config.model.name
        if await called(self._ledger.is_off, "model", name):
            raise StepFailed(
                ErrorClass.MODEL_UNAVAILABLE, f"model {name} is switched off; the row waits", retry_after=_LOOK_AGAIN
            )
        with _of_scenario("prompt"):
            prompt = scenario.prompt(case)
        asked = chat(prompt, case, self._config.runner.max_prompt_chars)
        schema = schema_for(scenario.output_model, asked.tags)
        answers: list[ChatAnswer] = []
        while True:
            again = item.attempts + len(answers)
            request = ChatRequest(
                messages=asked.messages,
                schema=schema,
                max_tokens=scenario.max_tokens,
                temperature=max(scenario.temperature, _SECOND_TEMPERATURE if again else 0.0),
                timeout=self._config.model.timeout,
                request_id=f"careloom-{item.id}-{item.lease[:8]}-{len(answers)}",
                priority=PRIORITIES[scenario.stage],
            )
            answers.append(await self._model.chat(request))
            answered_at = datetime.now(UTC)
            try:
                passed = guarded(scenario.output_model, answers[-1], tags=asked.tags, facts=prompt.facts)
            except StepFailed:
                if len(answers) == ASKED_AT_MOST:
                    raise
                continue
            return Said(
                answer=passed.answer,
                cut=passed.cut,
                prompt_tokens=sum(answer.prompt_tokens for answer in answers),
                completion_tokens=sum(answer.completion_tokens for answer in answers),
                seconds=sum(answer.seconds for answer in answers),
                answered_at=answered_at,
            )

    def _outgoing(
        self,
        item: WorkItem,
        scenario: Scenario[Any],
        findings: Sequence[Finding],
        drafts: Sequence[Draft],
        case: Case,
        *,
        part: Part,
        earlier: Mapping[str, str] | None = None,
    ) -> Outgoing:
        event, model = item.event, self._config.model
        version = f"/_history/{event.version_id}" if event.version_id else ""
        rules = part == "rules"
        return Outgoing(
            drafts=drafts,
            author=Author("rules", f"careloom {scenario.id}", scenario.version)
            if rules
            else Author("model", model.name, model.version, model.registration_number, model.stand_in),
            origin=Origin(
                scenario=scenario.id,
                scenario_version=scenario.version,
                prompt_version=None if rules else scenario.prompt_version,
                trigger=f"{event.resource_type}/{event.resource_id}{version}",
                rules=tuple(dict.fromkeys(finding.code for finding in findings)),
            ),
            recorded=case.now,
            part=part,
            earlier=earlier,
        )


@contextmanager
def _of_scenario(method: str) -> Iterator[None]:
    """A fault in a plugin's code: its type and place are told, its message may hold patient data.

    Raises:
        StepFailed: SCENARIO_ERROR.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 whatever a plugin raises is converted to what may be told of it
        raise StepFailed(
            ErrorClass.SCENARIO_ERROR, f"{method}() of the scenario failed: {type(error).__name__} at {place(error)}"
        ) from None
