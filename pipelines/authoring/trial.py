"""One scenario on one patient, on careloom's own way but without its services: no Kafka, Airflow, ledger, FHIR server.

The record is read by `pipelines.runner.context`, the model asked by `pipelines.runner.asking`, guards applied as for a
row of the ledger. Only reading (a file), asking (a given answer, the stand-in, or a server that is named) and writing
(nothing is written) differ.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from pipelines.authoring.bundle_search import BundleRecords, when
from pipelines.authoring.record_file import PatientFile
from pipelines.errors import ConfigError
from pipelines.ledger.rows import EventRow, Position
from pipelines.models.fleet import Fleet
from pipelines.models.settings import PANEL, Model, Registry
from pipelines.runner.asking import Asking, Said, Spent
from pipelines.runner.context import Context
from pipelines.runner.looking_up import with_passages
from pipelines.runner.notices import with_notices
from pipelines.runner.plugin_faults import of_plugin
from pipelines.stack.schema_sample import least
from plugins.errors import ModelFailed
from plugins.fhir_text import DEVICE, draft
from plugins.guarding import Guard
from plugins.knowledge import KnowledgeSource
from plugins.matching import Matcher
from plugins.model_backend import ChatAnswer, ChatRequest
from plugins.scenario import Case, Draft, Finding, Locale, Resource, Scenario, reference
from plugins.testing import draft_problems, references

#: As in `pipelines.config.Runner`.
_PROMPT_CHARS = 3000
STAND_IN, GIVEN = "stand-in", "given"


@dataclass(frozen=True, slots=True)
class Question:
    """What a model was asked and what it said."""

    model: str
    system: str
    user: str
    answer: str


@dataclass(slots=True)
class Trial:
    """All that came of a trial, as far as it went.

    Attributes:
        scenario, version: whose it is.
        event: "Type/id" of what started it.
        why: how that was chosen.
        now: the time as it was for the scenario.
        found: query -> how many resources; of `knowledge`, how many passages.
        truncated: queries that had more.
        not_applied: search parameters that a file cannot be searched by.
        answered_by: "stand-in", "given", or the model's name.
        asked: whether the scenario wanted to ask a model.
    """

    scenario: str
    version: str
    event: str
    why: str
    now: datetime
    answered_by: str
    found: dict[str, int] = field(default_factory=dict)
    truncated: tuple[str, ...] = ()
    not_applied: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    rule_drafts: tuple[Draft, ...] = ()
    questions: list[Question] = field(default_factory=list)
    verdicts: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[Finding, ...] = ()
    cut: int = 0
    drafts: tuple[Draft, ...] = ()
    problems: tuple[str, ...] = ()
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Answers:
    """Who answers.

    Attributes:
        given: answers in order, as JSON texts; a question beyond them is refused.
        model: an OpenAI-compatible server: (URL ending in /v1, name); goes before `given`.
    """

    given: Sequence[str] = ()
    model: tuple[str, str] | None = None

    @property
    def by(self) -> str:
        """Whose answers they are."""
        return self.model[1] if self.model else GIVEN if self.given else STAND_IN


async def run(
    scenario: Scenario[Any],
    patient: PatientFile,
    *,
    event: Resource | None,
    now: datetime | None,
    answers: Answers,
    locale: Locale | None,
    guards: Sequence[Guard],
    knowledge: Sequence[KnowledgeSource],
) -> Trial:
    """Try a scenario.

    Args:
        event: what starts it; None picks the newest resource of the file that does.
        now: the scenario's clock; None for the event's own time, else that of this machine.
        locale: None for that of the golden case, else Chinese.

    Raises:
        ConfigError: nothing in the file starts it.
        StepFailed: the scenario or a guard fails, the model does not answer, or its answer is none.
    """
    trial, case = await _case(scenario, patient, event, now, locale, answers)
    with of_plugin("rules() of the scenario"):
        trial.findings = tuple(scenario.rules(case))
    with of_plugin("rule_drafts() of the scenario"):
        trial.rule_drafts = tuple(scenario.rule_drafts(case, trial.findings))
    with of_plugin("asks() of the scenario"):
        trial.asked = scenario.asks(case, trial.findings)
    if trial.asked and not case.passages:
        case = await with_passages(scenario, case, knowledge)
    trial.found |= {name: len(passages) for name, passages in case.passages.items()}
    drafts = trial.rule_drafts
    if trial.asked:
        said = await _ask(scenario, case, trial, answers, guards)
        with of_plugin("drafts() of the scenario"):
            made = tuple(said.drafts(scenario, case, (*trial.findings, *said.notices)))
        trial.drafts = with_notices(made, said.notices, case.locale)
        trial.cut, trial.notices = said.cut, said.notices
        drafts = (*drafts, *trial.drafts)
    names = {draft(each.name) for each in drafts}
    known = references(case) | {DEVICE} | names
    trial.problems = tuple(f"{each.name}: {problem}" for each in drafts for problem in draft_problems(each, known))
    return trial


async def _ask(scenario: Scenario[Any], case: Case, trial: Trial, answers: Answers, guards: Sequence[Guard]) -> Said:
    fleet = _Listening(_registry(scenario, answers), answers, trial.questions)
    spent = Spent()
    asking = Asking(fleet, guards, max_prompt_chars=_PROMPT_CHARS, ask=_at_once, is_off=_never_off)
    try:
        return await asking(scenario, case, spent, request_id="careloom-try")
    finally:
        trial.verdicts = spent.verdicts
        await fleet.close()


async def _case(
    scenario: Scenario[Any],
    patient: PatientFile,
    event: Resource | None,
    now: datetime | None,
    locale: Locale | None,
    answers: Answers,
) -> tuple[Trial, Case]:
    """What the scenario is given, and the trial as far as that."""
    if patient.golden is not None:
        case = patient.golden.case
        why = "the golden case's own"
        case = replace(case, trigger=event or case.trigger, now=now or case.now, locale=locale or case.locale)
        not_applied: set[str] = set()
    else:
        trigger, why = _started_by(scenario, patient, event)
        at = now or when(trigger) or datetime.now(UTC)
        records = BundleRecords(patient.resources)
        filled = await Context(records, locale=locale or "zh").fill(scenario, _event_row(trigger, at), trigger)
        case, not_applied = replace(filled.case, now=at), records.not_applied
    trial = Trial(scenario.id, scenario.version, reference(case.trigger), why, case.now, answers.by)
    trial.found = {name: len(found) for name, found in case.resources.items()}
    trial.truncated, trial.not_applied = tuple(sorted(case.truncated)), tuple(sorted(not_applied))
    return trial, case


def _started_by(scenario: Scenario[Any], patient: PatientFile, event: Resource | None) -> tuple[Resource, str]:
    """The event, and how it was chosen."""
    matcher = Matcher([scenario])
    if event is not None:
        return event, "as given" if matcher.match(event) else "as given, though no trigger of the scenario matches it"
    starting = [r for r in patient.resources if r.get("resourceType") in matcher.types and matcher.match(r)]
    if not starting:
        wanted = ", ".join(sorted(matcher.types))
        raise ConfigError(
            f"nothing in {patient.name} starts {scenario.id}, which waits for {wanted}; "
            "give the event with --event FILE"
        )
    newest = max(enumerate(starting), key=lambda each: (_sortable(each[1]), each[0]))[1]
    return newest, f"the newest of {len(starting)} in {patient.name} that start it"


def _sortable(resource: Resource) -> float:
    at = when(resource)
    return at.timestamp() if at else 0.0


def _event_row(trigger: Resource, at: datetime) -> EventRow:
    kind, id_ = str(trigger["resourceType"]), str(trigger.get("id"))
    nowhere = Position("", 0, 0)
    return EventRow("try", "file", "R4", kind, id_, None, at, "written", "", nowhere, at, at)


def _registry(scenario: Scenario[Any], answers: Answers) -> Registry:
    """The model; for a panel the same one twice, since one file has no second."""
    url, name = answers.model or ("", answers.by)
    kind = "openai" if answers.model else "file"
    shown = f"{name} (1)" if scenario.panel else name
    first = Model(
        name=shown, kind=kind, url=url, served_as=name, version="as served", stand_in=answers.by == STAND_IN, attempts=1
    )
    if not scenario.panel:
        return Registry(first, (), {})
    second = first.model_copy(update={"name": f"{name} (2)"})
    panel = Model(name="panel", kind=PANEL, members=(first.name, second.name))
    return Registry(panel, (first, second), {})


class _Listening(Fleet):
    """Asks, and keeps what was asked and said."""

    def __init__(self, registry: Registry, answers: Answers, questions: list[Question]) -> None:
        super().__init__(registry, {"file": lambda settings: _Given(answers.given)})
        self._questions = questions

    async def ask(self, model: Model, request: ChatRequest) -> ChatAnswer:
        answer = await super().ask(model, request)
        said = {message["role"]: str(message["content"]) for message in request.messages}
        self._questions.append(Question(model.name, said.get("system", ""), said.get("user", ""), answer.text))
        return answer


class _Given:
    """Answers from files in order, or the least that the schema allows."""

    def __init__(self, given: Sequence[str]) -> None:
        self._left = list(given)
        self._stand_in = not given

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        """The next one."""
        if not self._stand_in and not self._left:
            raise ModelFailed("there are more questions than answers; give one --answer for each", kind="rejected")
        text = json.dumps(least(request.schema), ensure_ascii=False) if self._stand_in else self._left.pop(0)
        return ChatAnswer(text, "stop", 0, 0, 0.0, STAND_IN if self._stand_in else GIVEN)

    async def close(self) -> None:
        """Nothing is open."""


async def _at_once(_: str, question: Callable[[], Awaitable[ChatAnswer]]) -> ChatAnswer:
    return await question()


async def _never_off(_: str, __: str) -> bool:
    return False
