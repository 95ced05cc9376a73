"""One row's way from its event to drafts in the outbox: payload, record, rules, red flags at once, model, guard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fhir_adapters.errors import FhirServerError
from fhir_adapters.provenance import Author, Origin
from pipelines.config import Config
from pipelines.errors import ErrorClass, PayloadGone, StepFailed, Waits
from pipelines.fail_points import fail_point
from pipelines.failures.dependencies import KAFKA, reading_of, writing_of
from pipelines.failures.policy import POLICIES, Action
from pipelines.kafka.payloads import PayloadSource
from pipelines.ledger.calls import called
from pipelines.ledger.rows import Inference, WorkItem
from pipelines.ledger.store import Ledger
from pipelines.models.authorship import name_of, version_of
from pipelines.models.fleet import Fleet
from pipelines.runner.approval import wording
from pipelines.runner.asking import Asking, Said, Spent
from pipelines.runner.batch import Batch
from pipelines.runner.context import parse
from pipelines.runner.looking_up import with_passages
from pipelines.runner.notices import with_notices
from pipelines.runner.plugin_faults import of_plugin
from pipelines.runner.recognition import outbox, written_before
from pipelines.runner.sources import Sources
from pipelines.runner.write_back import Outgoing, Part, failure, pack, referred, send
from pipelines.telemetry.steps import Step, timed
from plugins.lifecycle import Counted, Failed, Inferred, Started, added
from plugins.manager import Loaded
from plugins.scenario import Case, Draft, Finding, Scenario, Severity

_log = logging.getLogger(__name__)


class Inferring:
    """The way to drafts, for one row at a time; many may be under way at once.

    Args:
        config: locale and limits.
        ledger: where rows are.
        batch: of the rows; asked right before something is written elsewhere, and before a model is asked.
        loaded: scenarios, guards, knowledge and lifecycle hooks, as installed.
        payloads: the events' bytes.
        sources: the hospitals' servers.
        fleet: the models.
    """

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        batch: Batch,
        loaded: Loaded,
        payloads: PayloadSource,
        sources: Sources,
        fleet: Fleet,
    ) -> None:
        self._ledger = ledger
        self._batch = batch
        self._loaded = loaded
        self._lifecycle = loaded.lifecycle
        self._payloads = payloads
        self._one_reader = asyncio.Lock()
        self._sources = sources
        self._asking = Asking(
            fleet,
            loaded.guards,
            max_prompt_chars=config.runner.max_prompt_chars,
            ask=batch.ask,
            is_off=batch.is_off,
        )

    async def __call__(self, item: WorkItem) -> WorkItem:
        """Take one row from its event to its outbox; returns the row as it is then, to be written.

        Raises:
            StepFailed: it did not get there; what was written at once stays written.
            Waits: it cannot go on now.
            LeaseLost: the row is another worker's.
            Overtaken: a newer version of its resource came.
        """
        scenario = self._loaded.scenarios.get(item.scenario)
        if scenario is None:
            raise StepFailed(
                ErrorClass.SCENARIO_MISSING, f"no scenario {item.scenario} is installed; install its plugin, or discard"
            )
        if item.replay and not item.rules_only and (references := await self._written_before(item)):
            return await self._batch.turns.called(self._ledger.inferred, item, Inference(outbox(references), times={}))
        work = Started(scenario.id, scenario.version, scenario.stage.value, item.attempts + 1)
        spent, counted = Spent(), dict[str, Mapping[str, float]]()
        try:
            inferred = await self._inferred(item, scenario, work, spent, counted)
        except Waits:
            await called(self._ledger.tallied, item, spent.tally({}))
            raise
        except StepFailed as failed:
            passing = POLICIES[failed.error_class].action is Action.WAIT
            told = self._lifecycle.on_failure(Failed(work, failed.error_class.value, passing))
            await called(self._ledger.tallied, item, spent.tally(added(counted, told)))
            raise
        fail_point("runner.inferred")
        return inferred

    async def _inferred(
        self, item: WorkItem, scenario: Scenario[Any], work: Started, spent: Spent, counted: dict[str, Any]
    ) -> WorkItem:
        """From the event's bytes to drafts in the ledger; `spent` and `counted` take note on the way."""
        case = await self._case(item, scenario)
        with timed(Step.RULES) as ran, of_plugin("rules() of the scenario"):
            findings = tuple(scenario.rules(case))
            ran.set(careloom__findings=len(findings))
        written = await self._red_flags(item, scenario, case, findings)
        counted |= self._lifecycle.before_infer(work)
        with of_plugin("asks() of the scenario"):
            asks = scenario.asks(case, findings)
        if not asks:
            return await self._by_rules(item, scenario, case, findings, work, counted)
        with timed(Step.KNOWLEDGE):
            case = await with_passages(scenario, case, self._loaded.knowledge)
        said = await self._asking(
            scenario, case, spent, request_id=f"careloom-{item.id}-{item.lease[:8]}", tried=item.attempts
        )
        fail_point("runner.asked")
        guarded_at = datetime.now(UTC)
        with of_plugin("drafts() of the scenario"):
            drafts = tuple(said.drafts(scenario, case, (*findings, *said.notices)))
        drafts = with_notices(drafts, said.notices, case.locale)
        if item.rules_written and referred(drafts):  # to what an earlier try has written: it is recognised, and named
            written = await self._send_rules(item, scenario, case, findings)
        outgoing = self._outgoing(item, scenario, findings, drafts, case, said=said, earlier=written)
        inference = Inference(
            drafts=pack(outgoing),
            times={"context_at": case.now, "answered_at": said.answered_at, "guarded_at": guarded_at},
            model=outgoing.author.name,
            model_version=outgoing.author.version,
            prompt_tokens=spent.sum("prompt_tokens"),
            completion_tokens=spent.sum("completion_tokens"),
            model_seconds=spent.sum("seconds"),
            findings=len(findings),
            cut_statements=said.cut,
            tally=spent.tally(added(counted, self._told(work, spent, said, findings, drafts))),
        )
        return await self._batch.turns.called(self._ledger.inferred, item, inference)

    async def _by_rules(
        self,
        item: WorkItem,
        scenario: Scenario[Any],
        case: Case,
        findings: Sequence[Finding],
        work: Started,
        counted: Mapping[str, Any],
    ) -> WorkItem:
        """Where the scenario asks no model: what its rules draft is written, and nothing is left to write later."""
        if not item.rules_written:
            await self._send_rules(item, scenario, case, findings)
        codes = tuple(finding.code for finding in findings)
        told = self._lifecycle.after_infer(Inferred(work, (), 0, 0, 0.0, codes, (), 0))
        inference = Inference(
            drafts=pack(self._outgoing(item, scenario, findings, (), case)),
            times={"context_at": case.now},
            findings=len(findings),
            tally=Spent().tally(added(counted, told)),
        )
        return await self._batch.turns.called(self._ledger.inferred, item, inference)

    def _told(
        self, work: Started, spent: Spent, said: Said, findings: Sequence[Finding], drafts: Sequence[Draft]
    ) -> Counted:
        """What plugins count when they are told what was inferred."""
        return self._lifecycle.after_infer(
            Inferred(
                work,
                models=tuple(model.name for model in said.models),
                prompt_tokens=spent.sum("prompt_tokens"),
                completion_tokens=spent.sum("completion_tokens"),
                seconds=spent.sum("seconds"),
                findings=tuple(finding.code for finding in (*findings, *said.notices)),
                drafts=tuple(str(draft.resource.get("resourceType")) for draft in drafts),
                cut=said.cut,
            )
        )

    async def _written_before(self, item: WorkItem) -> Sequence[str]:
        """What the piece of work that is run again here has written."""
        try:
            return await written_before(self._sources.of(item.event.source).client, item.identity)
        except FhirServerError as error:
            raise failure(error) from None

    async def _case(self, item: WorkItem, scenario: Scenario[Any]) -> Case:
        """The event's bytes and the part of the record that the scenario asks for."""
        server = self._sources.of(item.event.source)
        try:
            async with self._one_reader:
                with timed(Step.PAYLOAD):
                    kept = self._payloads.has(item.event)  # then nothing is waited for, and no thread is needed
                    payload = (
                        self._payloads.get(item.event)
                        if kept
                        else await asyncio.to_thread(self._payloads.get, item.event)
                    )
            if not kept:
                self._batch.served(KAFKA)
        except PayloadGone as error:
            raise StepFailed(ErrorClass.PAYLOAD_GONE, str(error)) from None
        trigger = parse(item.event, payload)
        try:
            with timed(Step.RECORD):
                filled = await server.context.fill(scenario, item.event, trigger)
        except FhirServerError as error:
            raise failure(error) from None
        if filled.asked:
            self._batch.served(reading_of(item.event.source))
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
        with of_plugin("rule_drafts() of the scenario"):
            drafts = tuple(scenario.rule_drafts(case, findings))
        if not drafts:
            return {}
        outgoing = self._outgoing(item, scenario, findings, drafts, case)
        pack(outgoing)  # refuses what cannot be written before it goes out
        server = self._sources.of(item.event.source)
        sent = await send(server.client, item.identity, outgoing, leave=self._batch.leave(item))
        self._batch.served(writing_of(item.event.source))
        fail_point("runner.flagged")
        if not item.rules_written:
            await called(self._ledger.rules_written, item, sent.written)
        return sent.references

    def _outgoing(
        self,
        item: WorkItem,
        scenario: Scenario[Any],
        findings: Sequence[Finding],
        drafts: Sequence[Draft],
        case: Case,
        *,
        said: Said | None = None,
        earlier: Mapping[str, str] | None = None,
    ) -> Outgoing:
        """What is to be written: of the model where it `said` something, else of the rules."""
        event = item.event
        version = f"/_history/{event.version_id}" if event.version_id else ""
        part: Part = "model" if said else "rules"
        return Outgoing(
            drafts=drafts,
            author=_author(said) if said else Author("rules", f"careloom {scenario.id}", scenario.version),
            origin=Origin(
                scenario=scenario.id,
                scenario_version=scenario.version,
                prompt_version=scenario.prompt_version if said else None,
                trigger=f"{event.resource_type}/{event.resource_id}{version}",
                rules=tuple(dict.fromkeys(finding.code for finding in findings)),
                guards=tuple(f"{guard.id}:{guard.version}" for guard in self._loaded.guards) if said else (),
            ),
            recorded=case.now,
            part=part,
            earlier=earlier,
            approval=wording(scenario, case.locale) if said else None,
        )


def _author(said: Said) -> Author:
    """The model that answered; of a panel all of them in one Device, which names each with its version."""
    if len(said.models) == 1:
        (model,) = said.models
        about = (model.intended_use.strip(), model.limits.strip(), (model.card or "").strip())
        return Author("model", model.name, model.version, model.registration_number, model.stand_in, *about)
    return Author(
        "model",
        name_of(model.name for model in said.models),
        version_of((model.name, model.version) for model in said.models),
        "; ".join(f"{m.name} {m.registration_number}" for m in said.models if m.registration_number) or None,
        any(model.stand_in for model in said.models),
        *(_each((m.name, getattr(m, what)) for m in said.models) for what in ("intended_use", "limits", "card")),
    )


def _each(texts: Iterable[tuple[str, str | None]]) -> str:
    """What is said of each model of a panel, under its name."""
    return "\n".join(f"{name}: {text.strip()}" for name, text in texts if text and text.strip())
