"""What starts a scenario, what it asks for, and the case that it is given: values, which nobody changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Literal

Resource = Mapping[str, Any]
"""A FHIR resource as parsed JSON. Read it, never change it."""

Locale = Literal["zh", "en"]

_EMPTY: Mapping[str, Any] = MappingProxyType({})


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
