"""Asks the models of a scenario: one question, several after one another, or several models side by side; all guarded.

It knows neither ledger nor breaker: who uses it says how a question goes out, and what is switched off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from pydantic import BaseModel

from pipelines.errors import ErrorClass, StepFailed, Waits
from pipelines.failures.dependencies import model_of
from pipelines.ledger.rows import Tally
from pipelines.models.fleet import Fleet
from pipelines.models.settings import Model
from pipelines.runner.guard import guarded
from pipelines.runner.plugin_faults import of_plugin
from pipelines.runner.verdicts import Judged, judged
from pipelines.telemetry.steps import Step, timed
from plugins.guarding import Guard
from plugins.model_backend import PRIORITIES, ChatAnswer, ChatRequest
from plugins.panel import PanelAnswer
from plugins.prompting import chat, schema_for
from plugins.scenario import FIRST, Case, Draft, Finding, Prompt, Scenario, Text

Ask = Callable[[str, Callable[[], Awaitable[ChatAnswer]]], Awaitable[ChatAnswer]]
"""(name of a model, question) -> its answer; asks once, or raises because the model is down."""
IsOff = Callable[[str, str], Awaitable[bool]]
"""("model", name) -> whether somebody has switched it off."""

#: An answer that is none is asked for once more; sampled, since greedy decoding would only repeat it.
ASKED_AT_MOST = 2
_SECOND_TEMPERATURE = 0.4
#: Seconds until a row whose model is switched off, or whose route is wrong, looks again.
_LOOK_AGAIN = 15.0
#: A panel goes on without members that fail so: the others' answers are shown, and who is absent.
_ABSENT = frozenset(
    {
        ErrorClass.MODEL_UNAVAILABLE,
        ErrorClass.MODEL_TIMEOUT,
        ErrorClass.MODEL_REJECTED,
        ErrorClass.MODEL_INVALID_OUTPUT,
    }
)
_SWITCHED_OFF = "switched_off"
#: Why a model stopped, as spans say it; what else a server says is its own text.
_REASONS = frozenset({"stop", "length", "content_filter", "tool_calls"})


@dataclass(slots=True)
class Spent:
    """What one try has cost and what its guards said so far; kept also when it fails."""

    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    verdicts: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)

    def answered(self, model: Model, answer: ChatAnswer) -> None:
        """A model answered, whatever its answer is worth."""
        start = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "seconds": 0.0, "cost": 0.0}
        sums = self.asked.setdefault(model.name, {**start, "currency": model.currency})
        sums["requests"] += 1
        sums["prompt_tokens"] += answer.prompt_tokens
        sums["completion_tokens"] += answer.completion_tokens
        sums["seconds"] += answer.seconds
        sums["cost"] += model.cost(answer.prompt_tokens, answer.completion_tokens, answer.seconds)

    def judged(self, counts: Mapping[tuple[str, str, str], int]) -> None:
        """Guards have looked at an answer."""
        for (guard, code, action), number in counts.items():
            actions = self.verdicts.setdefault(guard, {}).setdefault(code, {})
            actions[action] = actions.get(action, 0) + number

    def sum(self, what: str) -> Any:
        """Over all models: "prompt_tokens", "completion_tokens" or "seconds"."""
        return sum(spent[what] for spent in self.asked.values())

    def tally(self, counted: Mapping[str, Mapping[str, float]]) -> Tally:
        """For the ledger, with what plugins count."""
        return Tally(self.asked, self.verdicts, counted)


@dataclass(frozen=True, slots=True)
class Said:
    """What came of asking.

    Attributes:
        models: that answered, in the route's order.
        answers: of each step by its name, `FIRST` before them; guarded.
        panel: instead of `answers`, where a panel was asked.
        cut: statements taken out.
        notices: what the reader must be told: verdicts of guards, disagreement, who is absent.
        answered_at: when the last answer came.
    """

    models: tuple[Model, ...]
    answers: Mapping[str, Any]
    panel: PanelAnswer[Any] | None
    cut: int
    notices: tuple[Finding, ...]
    answered_at: datetime

    def drafts(self, scenario: Scenario[Any], case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The scenario's drafts of it."""
        if self.panel is not None:
            return scenario.drafts_of_panel(case, self.panel, findings)
        if scenario.steps:
            return scenario.drafts_of_steps(case, self.answers, findings)
        return scenario.drafts(case, self.answers[FIRST], findings)


@dataclass(frozen=True, slots=True)
class _Question:
    scenario: Scenario[Any]
    case: Case
    prompt: Prompt
    output_model: type[BaseModel]
    max_tokens: int
    request_id: str
    tried: int


class Asking:
    """Asks for one piece of work at a time; many may be under way at once.

    Args:
        fleet: the models.
        guards: that look at every answer.
        max_prompt_chars: facts beyond it are cut.
        ask: lets a question go out.
        is_off: what is switched off.
    """

    def __init__(
        self, fleet: Fleet, guards: Sequence[Guard], *, max_prompt_chars: int, ask: Ask, is_off: IsOff
    ) -> None:
        self._fleet = fleet
        self._guards = tuple(guards)
        self._max_prompt_chars = max_prompt_chars
        self._ask = ask
        self._is_off = is_off

    async def __call__(
        self, scenario: Scenario[Any], case: Case, spent: Spent, *, request_id: str, tried: int = 0
    ) -> Said:
        """Ask, and guard what comes.

        Args:
            scenario: says how.
            case: what about; with its passages.
            spent: takes note of what it costs.
            request_id: for the servers' logs; unique for each try of a piece of work.
            tried: tries before this one: another answer is wanted than theirs.

        Raises:
            StepFailed: no answer, or none that may be used.
            Waits: what `ask` raises.
        """
        with of_plugin("prompt() of the scenario"):
            prompt = scenario.prompt(case)
        question = _Question(scenario, case, prompt, scenario.output_model, scenario.max_tokens, request_id, tried)
        route = self._fleet.registry.route(scenario.id)
        off = [model for model in route if await self._is_off("model", model.name)]
        on = [model for model in route if model not in off]
        if scenario.panel:
            return await self._panel(question, on, off, spent)
        if not on:
            raise _off(route[0])
        return await self._steps(question, on[0], spent)

    async def _steps(self, question: _Question, model: Model, spent: Spent) -> Said:
        """One model, the first question and those that follow from its answers."""
        scenario, case = question.scenario, question.case
        first = await self._answer(model, question, spent)
        results: dict[str, Judged[Any]] = {FIRST: first}
        for n, step in enumerate(scenario.steps, start=1):
            with of_plugin("next_prompt() of the scenario"):
                answers = {name: result.answer for name, result in results.items()}
                prompt = scenario.next_prompt(case, step, answers)
            if prompt is not None:
                id_ = f"{question.request_id}-s{n}"
                asked = _Question(scenario, case, prompt, step.output_model, step.max_tokens, id_, question.tried)
                results[step.name] = await self._answer(model, asked, spent)
        notices = [finding for result in results.values() for finding in result.findings]
        answers = {name: result.answer for name, result in results.items()}
        cut = sum(result.cut for result in results.values())
        return Said((model,), answers, None, cut, tuple(dict.fromkeys(notices)), datetime.now(UTC))

    async def _panel(self, question: _Question, on: Sequence[Model], off: Sequence[Model], spent: Spent) -> Said:
        """Several models, the same question, side by side; two answers at least, or the row waits."""
        if len(on) + len(off) < 2:
            raise StepFailed(
                ErrorClass.MODEL_UNAVAILABLE,
                f"{question.scenario.id} asks a panel, and its route has one model; name several in [routing]",
                retry_after=_LOOK_AGAIN,
            )
        if len(on) < 2:
            raise _off(off[0])
        outcomes = await asyncio.gather(*(self._answer(m, question, spent) for m in on), return_exceptions=True)
        results: dict[str, Judged[Any]] = {}
        failures: dict[str, StepFailed | Waits] = {}
        for model, outcome in zip(on, outcomes, strict=True):
            if isinstance(outcome, Judged):
                results[model.name] = outcome
            else:
                failures[model.name] = _absence(outcome)
        if len(results) < 2:
            raise _first(failures.values())
        absent = {model.name: _SWITCHED_OFF for model in off}
        absent |= {name: _why(failure) for name, failure in failures.items()}
        panel = PanelAnswer({name: result.answer for name, result in results.items()}, absent)
        notices = [_by(name, finding) for name, result in results.items() for finding in result.findings]
        return Said(
            models=tuple(model for model in on if model.name in results),
            answers={},
            panel=panel,
            cut=sum(result.cut for result in results.values()),
            notices=tuple(dict.fromkeys((*panel.findings(), *notices))),
            answered_at=datetime.now(UTC),
        )

    async def _answer(self, model: Model, question: _Question, spent: Spent) -> Judged[Any]:
        """A model's answer, guarded; one that is none is asked for once more."""
        asked = chat(question.prompt, question.case, self._max_prompt_chars)
        shown = question.prompt.facts[: len(asked.tags)]
        schema = schema_for(question.output_model, asked.tags)
        for n in range(ASKED_AT_MOST):
            request = ChatRequest(
                messages=asked.messages,
                schema=schema,
                max_tokens=question.max_tokens,
                temperature=max(question.scenario.temperature, _SECOND_TEMPERATURE if question.tried + n else 0.0),
                timeout=model.timeout,
                request_id=f"{question.request_id}-{n}",
                priority=PRIORITIES[question.scenario.stage],
                tensors=question.prompt.tensors,
            )
            answer = await self._answered(model, request)
            spent.answered(model, answer)
            try:
                passed = guarded(question.output_model, answer, tags=asked.tags, facts=shown)
                break
            except StepFailed as failure:
                failure.dependency = model_of(model.name)
                if n + 1 == ASKED_AT_MOST:
                    raise
        with timed(Step.GUARDS, model.name) as guarding:
            result = judged(
                self._guards,
                passed.answer,
                scenario=question.scenario,
                case=question.case,
                facts=shown,
                instruction=asked.messages[0]["content"],
            )
            guarding.set(careloom__answer__cut=result.cut)
        spent.judged(result.counts)
        return Judged(result.answer, result.cut + passed.cut, result.findings, result.counts)

    async def _answered(self, model: Model, request: ChatRequest) -> ChatAnswer:
        """One question, as a step with OpenTelemetry's names for generative AI."""
        asking = timed(
            Step.MODEL,
            model.name,
            "client",
            gen_ai__operation__name="chat",
            gen_ai__provider__name=model.kind,
            gen_ai__request__model=model.served_name,
            gen_ai__request__max_tokens=request.max_tokens,
            gen_ai__request__temperature=request.temperature,
        )
        with asking:
            answer = await self._ask(model.name, partial(self._fleet.ask, model, request))
            asking.set(
                gen_ai__response__finish_reasons=[
                    answer.finish_reason if answer.finish_reason in _REASONS else "other"
                ],
                gen_ai__usage__input_tokens=answer.prompt_tokens,
                gen_ai__usage__output_tokens=answer.completion_tokens,
            )
        return answer


def _off(model: Model) -> StepFailed:
    return StepFailed(
        ErrorClass.MODEL_UNAVAILABLE,
        f"model {model.name} is switched off; the row waits",
        retry_after=_LOOK_AGAIN,
    )  # names no dependency: what a person has switched off is not down


def _absence(outcome: BaseException) -> StepFailed | Waits:
    """Why one member has no answer; what is no trouble of its model alone is everybody's, and is raised."""
    own = isinstance(outcome, StepFailed) and outcome.error_class in _ABSENT
    if own or (isinstance(outcome, Waits) and outcome.dependency is not None):
        return outcome  # type: ignore[return-value]
    raise outcome


def _why(failure: StepFailed | Waits) -> str:
    return failure.error_class.value if isinstance(failure, StepFailed) else ErrorClass.MODEL_UNAVAILABLE.value


def _first(failures: Iterable[StepFailed | Waits]) -> StepFailed | Waits:
    """Of several, one that waiting may mend; else the first."""
    known = tuple(failures)
    passing = {ErrorClass.MODEL_UNAVAILABLE.value, ErrorClass.MODEL_TIMEOUT.value}
    return next((failure for failure in known if _why(failure) in passing), known[0])


def _by(model: str, finding: Finding) -> Finding:
    text = Text(f"{model}:{finding.text.zh}", f"{model}: {finding.text.en}")
    return Finding(finding.code, finding.severity, text, finding.sources, finding.citation)
