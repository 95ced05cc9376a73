"""The scenario API: everything a plugin author writes, as pure values and functions (no I/O, no Airflow, no Kafka).

A scenario says what starts it (`Trigger`), which part of the record it needs (`RecordQuery`), how the model is asked
(`prompt`), what the model may answer (`output_model`), which rules hold without the model (`rules`), and which FHIR
drafts come of it (`rule_drafts`, `drafts`). The runner does the rest.

All that an author needs is imported from here; what a scenario is given stands in `plugins.case`, what it says in
`plugins.prompts_and_drafts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel

from plugins.case import (
    PASSAGE,
    Case,
    KnowledgeQuery,
    Locale,
    Passage,
    Question,
    RecordQuery,
    Resource,
    Text,
    Trigger,
    reference,
)
from plugins.errors import ScenarioRefused
from plugins.prompts_and_drafts import Draft, Fact, Finding, Prompt, Severity, Statement, Step

if TYPE_CHECKING:
    from plugins.panel import PanelAnswer

__all__ = [
    "FIRST",
    "PASSAGE",
    "Answer",
    "Autonomy",
    "Case",
    "Draft",
    "Fact",
    "Finding",
    "KnowledgeQuery",
    "Locale",
    "Passage",
    "Prompt",
    "Question",
    "RecordQuery",
    "Resource",
    "Risk",
    "Scenario",
    "Severity",
    "Stage",
    "Statement",
    "Step",
    "Text",
    "Trigger",
    "reference",
]

_EMPTY: Mapping[str, Any] = MappingProxyType({})


class Stage(StrEnum):
    """When in a patient's journey a scenario runs."""

    PRE_VISIT = "pre_visit"
    IN_VISIT = "in_visit"
    POST_VISIT = "post_visit"


class Risk(StrEnum):
    """A informs; B drafts what a clinician signs; C could change care by itself if wrong."""

    A = "A"
    B = "B"
    C = "C"


class Autonomy(StrEnum):
    """How far a scenario may go without a person: what advises is read; on a draft a named person decides."""

    ADVISE = "advise"
    DRAFT = "draft"


Answer = TypeVar("Answer", bound=BaseModel)


#: The first answer's key among those of a scenario with steps.
FIRST = "first"


class Scenario(ABC, Generic[Answer]):
    """One scenario. Subclass it, fill the class attributes, return an instance from `careloom_scenarios`.

    Class attributes:
        id: "<stage>.<name>", final.
        version: of prompt, rules and drafts together; a new version computes anew.
        title: for people.
        stage, risk, autonomy: see the enums.
        triggers: any one of them starts it.
        record: the searches that fill `Case.resources`.
        knowledge: the looks into the knowledge base that fill `Case.passages`.
        output_model: pydantic model of the answer; every string bounded, every code from a closed set.
        max_tokens: cap of the answer.
        temperature: sampling temperature.
        deadline: from event to written draft.
        objective: the share of its events that are drafted within `deadline`; alerts ask how fast the rest is used up.
        prompt_version: stands in Provenance.
        steps: what is asked after the first answer, each at most once and in this order; see `next_prompt`.
        panel: whether several models are asked side by side; see `drafts_of_panel`.
    """

    id: ClassVar[str]
    version: ClassVar[str]
    title: ClassVar[Text]
    stage: ClassVar[Stage]
    risk: ClassVar[Risk]
    autonomy: ClassVar[Autonomy] = Autonomy.DRAFT
    triggers: ClassVar[tuple[Trigger, ...]]
    record: ClassVar[tuple[RecordQuery, ...]]
    knowledge: ClassVar[tuple[KnowledgeQuery, ...]] = ()
    output_model: ClassVar[type[BaseModel]]
    max_tokens: ClassVar[int] = 400
    temperature: ClassVar[float] = 0.0
    deadline: ClassVar[timedelta]
    objective: ClassVar[float] = 0.95
    prompt_version: ClassVar[str]
    steps: ClassVar[tuple[Step, ...]] = ()
    panel: ClassVar[bool] = False

    @abstractmethod
    def prompt(self, case: Case) -> Prompt:
        """How the model is asked."""

    def questions(self, case: Case) -> Mapping[str, str | Sequence[Question]]:
        """What to look for in the knowledge base, by name of the `knowledge` query. Asked before `prompt`.

        Words are looked for in the language of the house; `Question`s each in their own, until one finds something.
        """
        return _EMPTY

    def rules(self, case: Case) -> Sequence[Finding]:
        """What holds without the model. Runs first, and runs when the model is off."""
        return ()

    def rule_drafts(self, case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
        """Drafts that rest on the rules alone. Written at once when a finding is a red flag, model or no model."""
        return ()

    def asks(self, case: Case, findings: Sequence[Finding]) -> bool:
        """Whether a model is asked about this case at all; where it is not, `rule_drafts` are all that is written.

        Args:
            findings: of `rules`.
        """
        return True

    @abstractmethod
    def drafts(self, case: Case, answer: Answer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """FHIR drafts of an answer that has passed the guards; its statements cite "Type/id", no longer tags.

        Every statement may have been cut: a draft must be honest without any. None at all is a valid outcome, for
        example where the patient has died.

        Args:
            findings: of `rules`, and behind them what guards found wrong with the answer (codes `guard.<id>.<code>`)
                and in what a panel differs (`panel.<what>`). What of the latter a draft does not show, careloom adds
                to its narrative.
        """

    def next_prompt(self, case: Case, step: Step, answers: Mapping[str, Any]) -> Prompt | None:
        """How one of `steps` is asked; None leaves it out.

        Args:
            answers: what has been answered, guarded: `FIRST`, then the names of the steps before this one.
        """
        return None

    def drafts_of_steps(self, case: Case, answers: Mapping[str, Any], findings: Sequence[Finding]) -> Sequence[Draft]:
        """`drafts` of a scenario with `steps`: `FIRST` is always there, a step that was left out is not."""
        return self.drafts(case, answers[FIRST], findings)

    def drafts_of_panel(self, case: Case, answer: PanelAnswer[Answer], findings: Sequence[Finding]) -> Sequence[Draft]:
        """`drafts` of a scenario with `panel`: show who said what, and never a mean of it.

        Where the models disagree, and who did not answer, stands in `findings`.

        Raises:
            ScenarioRefused: the scenario does not say it; one with `panel` is refused for that when it is loaded.
        """
        raise ScenarioRefused(f"{self.id}: panel = True without drafts_of_panel(); write it, or leave panel = True out")
