"""The scenario API: everything a plugin author writes, as pure values and functions (no I/O, no Airflow, no Kafka).

A scenario says what starts it (`Trigger`), which part of the record it needs (`RecordQuery`), how the model is asked
(`prompt`), what the model may answer (`output_model`), which rules hold without the model (`rules`), and which FHIR
drafts come of it (`rule_drafts`, `drafts`). The runner does the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel

from plugins.errors import ScenarioRefused
from plugins.tensors import Tensor

if TYPE_CHECKING:
    from plugins.panel import PanelAnswer

Resource = Mapping[str, Any]
"""A FHIR resource as parsed JSON. Read it, never change it."""

Locale = Literal["zh", "en"]

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
    """How far a scenario may go without a person."""

    ADVISE = "advise"
    DRAFT = "draft"


@dataclass(frozen=True, slots=True)
class Text:
    """The same text in the two languages that careloom speaks."""

    zh: str
    en: str

    def in_(self, locale: Locale) -> str:
        """The text in `locale`."""
        return self.zh if locale == "zh" else self.en


@dataclass(frozen=True, slots=True)
class Trigger:
    """Which resource version starts the scenario.

    Attributes:
        resource_type: FHIR type; the cheapest test.
        where: dotted path -> allowed values, for example {"status": ("in-progress",), "class.code": ("IMP",)};
            lists on the way match when any element does. A path that is absent does not match.
        fhirpath: a FHIRPath expression that must be true (or non-empty); compiled once, evaluated only after `where`.
        why: one line for the operator.
    """

    resource_type: str
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fhirpath: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class RecordQuery:
    """One FHIR search: the least of the record that serves.

    Attributes:
        name: key of the result in `Case.resources`.
        resource_type: FHIR type searched.
        params: search parameters; "{patient}" (Patient/<id>) and "{encounter}" (Encounter/<id>) are filled in. A query
            whose placeholder has no value is not run and yields nothing.
        window: only what happened within this time before the event; applied to `date_param`.
        date_param: the search parameter that `window` applies to, for example "date" or "recorded-date".
        cap: at most so many resources, newest first (`sort`); more are cut, and `Case.truncated` says so.
        sort: value of `_sort`.
    """

    name: str
    resource_type: str
    params: Mapping[str, str]
    window: timedelta | None = None
    date_param: str | None = None
    cap: int = 20
    sort: str | None = None


@dataclass(frozen=True, slots=True)
class Passage:
    """One passage of the knowledge base, as it may be quoted.

    Attributes:
        id: stable over rebuilds of the index: "<document>#<n>".
        text: the passage itself.
        title: of the document, with the heading that the passage stands under.
        origin: where the document was published: a URL, or a full bibliographic reference.
        date: of the document's edition, ISO 8601 (a year alone is enough).
        licence: under which the hospital may show it.
        locale: its language.
    """

    id: str
    text: str
    title: str
    origin: str
    date: str
    licence: str
    locale: Locale

    @property
    def source(self) -> str:
        """How a `Fact` and a `Draft.sources` name it, beside "Type/id" of the record's own resources."""
        return f"{PASSAGE}{self.id}"


#: In front of a passage's id wherever a source is named.
PASSAGE = "urn:careloom:passage:"


@dataclass(frozen=True, slots=True)
class KnowledgeQuery:
    """One look into the knowledge base. What is looked for comes from `Scenario.questions`.

    Attributes:
        name: key of the passages in `Case.passages`, and of the question in `Scenario.questions`.
        cap: at most so many passages, best first.
    """

    name: str
    cap: int = 3


@dataclass(frozen=True, slots=True)
class Question:
    """What to look for in the knowledge base.

    Attributes:
        words: as a person would ask, or a few key words.
        locale: language of the words, and so of the passages that are searched; see `plugins.patient_language`.
    """

    words: str
    locale: Locale


@dataclass(frozen=True, slots=True)
class Case:
    """What a scenario is given: one event and the part of the record that it asked for.

    Attributes:
        trigger: the resource version that started the scenario.
        patient: the Patient, or None where it could not be read.
        resources: query name -> resources, newest first.
        truncated: names of the queries that had more than their cap.
        locale: language of prompts and drafts.
        now: time of the event's processing (timezone-aware); the only clock a scenario may use.
        passages: query name -> passages of the knowledge base, best first.
    """

    trigger: Resource
    patient: Resource | None
    resources: Mapping[str, Sequence[Resource]]
    locale: Locale
    now: datetime
    truncated: frozenset[str] = frozenset()
    passages: Mapping[str, Sequence[Passage]] = field(default_factory=lambda: _EMPTY)

    def get(self, name: str) -> Sequence[Resource]:
        """The resources of one query; empty where nothing was found."""
        return self.resources.get(name, ())


def reference(resource: Resource) -> str:
    """ "Type/id" of a resource."""
    return f"{resource['resourceType']}/{resource['id']}"


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the record as the model sees it, with the resource that it rests on.

    In the prompt it stands as `R<n> <text>`, and the model cites `R<n>`; the runner turns that back into `source`.
    """

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked. The instruction is the same for every case, so that the prefix cache serves it.

    Attributes:
        instruction: static text, by locale and prompt version only.
        facts: what the record says; the runner numbers, fences and caps it.
        tensors: inputs of a model that reads no words; its output model then has a field for each output tensor.
    """

    instruction: str
    facts: Sequence[Fact]
    tensors: Sequence[Tensor] = ()


class Statement(BaseModel, frozen=True, extra="forbid"):
    """One sentence of a model's answer with the facts that it rests on. Subclass it to bound `text` differently.

    `sources` is restricted to the case's own tags (R1, R2, ...) in the schema that the model server enforces. In an
    output model a Statement stands in a list or is optional, so that one without support can be cut.
    """

    text: str
    sources: tuple[str, ...]


class Severity(StrEnum):
    """How much a rule's finding matters."""

    INFO = "info"
    WARNING = "warning"
    RED_FLAG = "red_flag"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule found, without any model.

    Attributes:
        code: stable id of the rule, for example "chest-pain-at-rest".
        severity: RED_FLAG findings are written at once, before the model is asked.
        text: for the clinician.
        sources: "Type/id" of what it rests on.
        citation: the published source of the rule.
    """

    code: str
    severity: Severity
    text: Text
    sources: tuple[str, ...]
    citation: str


@dataclass(frozen=True, slots=True)
class Draft:
    """One FHIR resource to write, complete but for what write-back adds (label, identity, Provenance).

    Attributes:
        name: which draft of the scenario this is, for example "note"; unique in the scenario, stable over versions.
            Other drafts of the same case refer to it as `urn:careloom:draft:<name>`.
        resource: FHIR R4 JSON without id; its type must have an `identifier` element. Where it names an author, it says
            `urn:careloom:device`: write-back puts the Device of the model (or of the rules) in its place.
        sources: "Type/id" that the draft rests on (Provenance.entity).
    """

    name: str
    resource: dict[str, Any]
    sources: tuple[str, ...]


Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Step:
    """One further question of a scenario, asked after the first answer.

    Attributes:
        name: key of its answer in `Scenario.drafts_of_steps`; unique in the scenario.
        output_model: pydantic model of its answer, bounded as the first one.
        max_tokens: cap of its answer.
    """

    name: str
    output_model: type[BaseModel]
    max_tokens: int = 400


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

    @property
    def drafts_by_rules(self) -> bool:
        """Whether it says `rule_drafts` of its own, and so may write before a model is asked."""
        return type(self).rule_drafts is not Scenario.rule_drafts

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
