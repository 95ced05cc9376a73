"""A scenario walked through as the runner does it, without its I/O: for golden cases and the conformance kit.

Rules, rule drafts, what is looked for in the knowledge base, the first question, then its steps or the other members of
its panel, drafts. Each method is held to what the runner reads of it, and a fault says which method it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel

from plugins.errors import FAULTS, NotConformant
from plugins.panel import PanelAnswer
from plugins.prompting import Chat, chat, parse_answer
from plugins.scenario import FIRST, Case, Draft, Finding, Prompt, Question, Scenario
from plugins.stand_in import stand_in_answer

_T = TypeVar("_T")
_EMPTY: Mapping[str, Any] = MappingProxyType({})
_LOCALES = ("zh", "en")
#: Members of a panel of which no golden case says what they answer.
_MEMBERS = ("model-a", "model-b")


@dataclass(frozen=True, slots=True)
class Answers:
    """What models say: each answer as JSON, or as the seed of a stand-in answer.

    Attributes:
        by: `FIRST` or the name of a step -> answer; what is not there is a stand-in's.
        panel: of a panel instead: member -> answer; empty for two stand-ins that differ.
        absent: member -> why it does not answer.
        seed: of stand-in answers that nobody names.
    """

    by: Mapping[str, str | int] = field(default_factory=dict)
    panel: Mapping[str, str | int] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """One question, as it goes out.

    Attributes:
        name: `FIRST`, or that of a step.
        output_model: what may be answered.
        prompt: as the scenario gives it.
        talk: as the model sees it.
    """

    name: str
    output_model: type[BaseModel]
    prompt: Prompt
    talk: Chat


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario made of one case.

    Attributes:
        findings: of its rules.
        drafts: of the rules, then of the answers.
        cut: statements taken out of the answers.
        asked: the questions in their order; those to a panel once.
        notices: where a panel differs, and who of it did not answer.
        looked_for: knowledge query -> questions.
    """

    findings: tuple[Finding, ...]
    drafts: tuple[Draft, ...]
    cut: int
    asked: tuple[Asked, ...] = ()
    notices: tuple[Finding, ...] = ()
    looked_for: Mapping[str, tuple[Question, ...]] = field(default_factory=dict)


def run(
    scenario: Scenario[Any], case: Case, answer_text: str | None = None, *, answers: Answers | None = None
) -> Outcome:
    """What the runner does, without its I/O.

    Args:
        answer_text: the model's answer to the first question; a stand-in answer for None.
        answers: instead of it, what is answered to each question.

    Raises:
        AnswerInvalid: an answer does not fit its output model.
        NotConformant: a method gives what the runner cannot read, or the answers are to no question of the scenario.
    """
    given = answers or Answers({FIRST: answer_text} if answer_text is not None else {})
    _fits(scenario, given)
    findings = _each("rules()", Finding, lambda: scenario.rules(case))
    drafts = _each("rule_drafts()", Draft, lambda: scenario.rule_drafts(case, findings))
    with of("asks()"):
        asks = scenario.asks(case, findings)
    if not asks:
        return Outcome(findings, drafts, 0)
    looked_for = sought(scenario, case)
    first = question(scenario, case)
    if scenario.panel:
        panel, cut = _panel(first, given)
        notices = panel.findings()
        made = _each("drafts_of_panel()", Draft, lambda: scenario.drafts_of_panel(case, panel, (*findings, *notices)))
        return Outcome(findings, (*drafts, *made), cut, (first,), notices, looked_for)
    said, asked, cut = _steps(scenario, case, first, given)
    if scenario.steps:
        made = _each("drafts_of_steps()", Draft, lambda: scenario.drafts_of_steps(case, said, findings))
    else:
        made = _each("drafts()", Draft, lambda: scenario.drafts(case, said[FIRST], findings))
    return Outcome(findings, (*drafts, *made), cut, asked, (), looked_for)


def question(scenario: Scenario[Any], case: Case) -> Asked:
    """The first question, whether or not the scenario would ask it of this case."""
    with of("prompt()"):
        return _asked(FIRST, scenario.output_model, scenario.prompt(case), case, "prompt()")


def sought(scenario: Scenario[Any], case: Case) -> Mapping[str, tuple[Question, ...]]:
    """What the scenario looks for in the knowledge base, before it has any passage.

    Raises:
        NotConformant: it is for a query that `knowledge` does not declare, or neither words nor `Question`s.
    """
    declared = [query.name for query in scenario.knowledge]
    if not declared:
        return _EMPTY
    with of("questions()"):
        asked = scenario.questions(replace(case, passages={}))
        if not isinstance(asked, Mapping):
            raise NotConformant(f"questions() returned {_kind(asked)}; return a mapping: knowledge query -> words")
        unknown = [str(name) for name in asked if name not in declared]
        if unknown:
            raise NotConformant(
                f"questions() asks for {unknown[0]!r}, which knowledge does not declare (it declares "
                f"{', '.join(declared)}); nobody looks for it: correct the name, or declare it"
            )
        return {name: tuple(_questions(name, words, case)) for name, words in asked.items()}


def _questions(name: str, words: Any, case: Case) -> Iterator[Question]:
    for each in [Question(words, case.locale)] if isinstance(words, str) else _listed(f"questions()[{name!r}]", words):
        if not isinstance(each, Question) or not isinstance(each.words, str) or each.locale not in _LOCALES:
            raise NotConformant(f"questions()[{name!r}] holds {_kind(each)}; give words, or Questions in zh or en")
        yield each


def _steps(
    scenario: Scenario[Any], case: Case, first: Asked, given: Answers
) -> tuple[dict[str, Any], tuple[Asked, ...], int]:
    """(answers, questions, statements cut) of one model: the first question and those that follow from its answers."""
    answer, cut = _answer(first, given.by.get(FIRST, given.seed))
    said, asked = {FIRST: answer}, [first]
    for n, step in enumerate(scenario.steps, start=1):
        what = f"next_prompt() for step {step.name!r}"
        with of(what):
            prompt = scenario.next_prompt(case, step, dict(said))
            if prompt is None:
                continue
            asked.append(_asked(step.name, step.output_model, prompt, case, what))
        said[step.name], lost = _answer(asked[-1], given.by.get(step.name, given.seed + n))
        cut += lost
    return said, tuple(asked), cut


def _panel(first: Asked, given: Answers) -> tuple[PanelAnswer[Any], int]:
    """What its members say to the one question, and how many statements were cut."""
    alike = dict.fromkeys(_MEMBERS, given.by[FIRST]) if FIRST in given.by else None
    members = given.panel or alike or {name: given.seed + n for n, name in enumerate(_MEMBERS)}
    answers = {name: _answer(first, said) for name, said in members.items()}
    said = {name: answer for name, (answer, _) in answers.items()}
    return PanelAnswer(said, dict(given.absent)), sum(cut for _, cut in answers.values())


def _answer(asked: Asked, said: str | int) -> tuple[Any, int]:
    tags = asked.talk.tags
    text = said if isinstance(said, str) else stand_in_answer(asked.output_model, tags, said)
    return parse_answer(asked.output_model, text, tags)


def _asked(name: str, output_model: type[BaseModel], prompt: object, case: Case, what: str) -> Asked:
    if not isinstance(prompt, Prompt):
        also = "" if name == FIRST else ", or None to leave the step out"
        raise NotConformant(f"{what} returned {_kind(prompt)}; return a Prompt{also}")
    return Asked(name, output_model, prompt, chat(prompt, case))


def _fits(scenario: Scenario[Any], given: Answers) -> None:
    """Raises NotConformant where answers are given to what is not asked so."""
    known = [FIRST, *(step.name for step in scenario.steps)]
    unknown = [name for name in given.by if name not in known]
    if unknown:
        raise NotConformant(f"answers: {unknown[0]!r} is no question of the scenario; it has {', '.join(known)}")
    if (given.panel or given.absent) and not scenario.panel:
        raise NotConformant("panel: the scenario asks no panel; give answer, or answers by step")
    if given.absent and len(given.panel) < 2:
        raise NotConformant("panel: two members at least must answer; with fewer the row waits")


@contextmanager
def of(method: str) -> Iterator[None]:
    """Whatever is raised inside says which method of the scenario it was."""
    try:
        yield
    except FAULTS as error:
        if not isinstance(error, NotConformant):
            error.add_note(f"in {method}")
        raise


def _each(method: str, kind: type[_T], call: Any) -> tuple[_T, ...]:
    """What a method returns, each of it of one kind."""
    with of(method):
        returned = _listed(method, call())
        for one in returned:
            if not isinstance(one, kind):
                raise NotConformant(f"{method} returned {_kind(one)} among others; return {kind.__name__}(...) only")
        return tuple(returned)


def _listed(method: str, returned: Any) -> Sequence[Any]:
    if isinstance(returned, str | bytes | Mapping) or not isinstance(returned, Iterable):
        raise NotConformant(f"{method} returned {_kind(returned)}; return a list, an empty one where there is nothing")
    return tuple(returned)


def _kind(value: object) -> str:
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
