"""One line of words for each kind of resource in a record, as a clinician would read it out."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plugins.fhir_text import Line, clean, codes, day, display, first, listed, source_of
from plugins.scenario import Fact, Locale, Resource, Text

_CLINICAL = {
    "active": Text("活动", "active"),
    "recurrence": Text("复发", "recurrence"),
    "relapse": Text("再发", "relapse"),
    "inactive": Text("非活动", "inactive"),
    "remission": Text("缓解", "remission"),
    "resolved": Text("已愈", "resolved"),
}
_CRITICALITY = {"high": Text("高风险", "high risk"), "low": Text("低风险", "low risk")}
_YES = re.compile(r"(?i)\s*(?:yes|y|true|是|是的|有|对)[。.!]?\s*")
_NO = re.compile(r"(?i)\s*(?:no|n|none|false|否|无|没有|不是|没|不)[。.!]?\s*")
_NOT_REAL = frozenset({"entered-in-error", "refuted", "cancelled"})


def real(resources: Iterable[Resource]) -> list[Resource]:
    """Without what the record itself withdraws: entered in error, refuted, cancelled."""
    return [r for r in resources if not _statuses(r) & _NOT_REAL]


def condition(resource: Resource, locale: Locale) -> str:
    """For example "Hypertension (active, 2019-03-01)"."""
    status = next(iter(codes(resource.get("clinicalStatus")) & _CLINICAL.keys()), "")
    since = day(resource.get("onsetDateTime")) or day(resource.get("onsetPeriod")) or day(resource.get("recordedDate"))
    return _with(display(resource.get("code")), _CLINICAL[status].in_(locale) if status else "", since)


def allergy(resource: Resource, locale: Locale) -> str:
    """For example "Penicillin: rash (high risk)"."""
    found = [m for r in listed(resource, "reaction") if isinstance(r, Mapping) for m in listed(r, "manifestation")]
    reactions = ", ".join(filter(None, (display(m) for m in found)))
    what = display(resource.get("code"))
    risk = _CRITICALITY.get(str(resource.get("criticality")))
    return _with(f"{what}: {reactions}" if what and reactions else what, risk.in_(locale) if risk else "")


def medication(resource: Resource) -> str:
    """For example "Metformin 500 mg, 1 tablet twice daily (2024-05-01)"."""
    what = display(resource.get("medicationCodeableConcept")) or display(resource.get("medicationReference"))
    how = clean(first(resource, "dosageInstruction").get("text") or first(resource, "dosage").get("text") or "", 100)
    since = _day(resource, "authoredOn", "effectiveDateTime", "effectivePeriod")
    return _with(f"{what}, {how}" if what and how else what, since)


def observation(resource: Resource) -> str:
    """For example "Heart rate: 88 /min (2026-01-02)"; components are joined; "" where nothing was measured."""
    components = [c for c in listed(resource, "component") if isinstance(c, Mapping)]
    parts = [f"{display(c.get('code'))} {said}" for c in components if (said := _value(c))]
    value = "; ".join(p for p in [_value(resource), *parts] if p)
    what = display(resource.get("code"))
    flags = ", ".join(filter(None, (display(i) for i in listed(resource, "interpretation"))))
    return _with(f"{what}: {value}", flags, _day(resource, "effectiveDateTime", "effectivePeriod")) if value else ""


def report(resource: Resource) -> str:
    """A DiagnosticReport's name and conclusion; "" without a conclusion (its results are Observations of their own)."""
    conclusion = clean(resource.get("conclusion") or "", 240)
    named = f"{display(resource.get('code'))}: {conclusion}" if conclusion else ""
    return _with(named, _day(resource, "effectiveDateTime", "issued"))


def procedure(resource: Resource) -> str:
    """A Procedure with its day."""
    return _with(display(resource.get("code")), _day(resource, "performedDateTime", "performedPeriod"))


def immunization(resource: Resource) -> str:
    """A vaccine with its day."""
    return _with(display(resource.get("vaccineCode")), _day(resource, "occurrenceDateTime"))


def encounter(resource: Resource) -> str:
    """A visit or stay: why, else what kind, with its first day."""
    kinds = ("reasonCode", "reasonReference", "type")
    named = dict.fromkeys(filter(None, (display(r) for kind in kinds for r in listed(resource, kind))))
    return _with(next(iter(named), "") or display(resource.get("class")), _day(resource, "period"))


def relative(resource: Resource) -> str:
    """A FamilyMemberHistory: who had what."""
    had = [display(c.get("code")) for c in listed(resource, "condition") if isinstance(c, Mapping)]
    named = ", ".join(h for h in had if h)
    return f"{display(resource.get('relationship'))}: {named}" if named else ""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answered question.

    Attributes:
        question: its words, or its link id.
        said: the answer in words; "" for a bare yes or no.
        yes: True or False where the whole answer is yes or no, else None.
    """

    question: str
    said: str
    yes: bool | None = None

    def line(self, locale: Locale) -> str:
        """ "question: answer"."""
        bare = {True: Text("是", "yes"), False: Text("否", "no")}
        said = self.said if self.yes is None else bare[self.yes].in_(locale)
        return f"{self.question}: {said}" if self.question else said

    @property
    def asserts(self) -> str:
        """What the person claims: the question's words after a yes, nothing after a no, else the answer's words."""
        if self.yes is None:
            return self.said
        return self.question if self.yes else ""


def replies(resource: Resource) -> list[Reply]:
    """Each answered question of a QuestionnaireResponse, nested ones too, in order."""
    return list(_replies(listed(resource, "item")))


def lines(resources: Iterable[Resource], say: Callable[[Resource], str], limit: int, locale: Locale) -> list[Line]:
    """`say(resource)` of each, at most `limit` different ones; a last line tells how many more there are."""
    found: dict[str, list[str]] = {}
    for resource in resources:
        text = say(resource)
        if text:
            found.setdefault(text, []).append(source_of(resource))
    kept = [Line(text, tuple(sources[:3])) for text, sources in list(found.items())[:limit]]
    more = len(found) - len(kept)
    if more:
        kept.append(Line(Text(f"另有{more}条见病历", f"{more} more in the record").in_(locale)))
    return kept


def facts(label: Text, shown: Iterable[Line], locale: Locale) -> list[Fact]:
    """Lines of one kind as facts, each with its label before it; lines that rest on nothing are no facts."""
    return [Fact(line.sources[0], f"{label.in_(locale)}: {line.text}") for line in shown if line.sources]


def _statuses(resource: Resource) -> frozenset[str]:
    status = resource.get("status")
    own = frozenset({status}) if isinstance(status, str) else frozenset[str]()
    return own | codes(resource.get("verificationStatus"))


def _with(text: str, *extras: str) -> str:
    kept = [extra for extra in extras if extra]
    return f"{text} ({', '.join(kept)})" if text and kept else text


def _day(resource: Resource, *elements: str) -> str:
    return next(filter(None, (day(resource.get(element)) for element in elements)), "")


def _replies(items: Sequence[Any], depth: int = 0) -> Iterator[Reply]:
    if depth > 10:
        return
    for item in items:
        if not isinstance(item, Mapping):
            continue
        given = [a for a in listed(item, "answer") if isinstance(a, Mapping)]
        yield from _reply(clean(item.get("text") or item.get("linkId") or "", 160), given)
        for answer in given:
            yield from _replies(listed(answer, "item"), depth + 1)
        yield from _replies(listed(item, "item"), depth + 1)


def _reply(question: str, given: Sequence[Mapping[str, Any]]) -> Iterator[Reply]:
    booleans = [a["valueBoolean"] for a in given if isinstance(a.get("valueBoolean"), bool)]
    said = ", ".join(filter(None, (_value(a) for a in given)))
    if booleans and not said:
        yield Reply(question, "", booleans[0])
    elif said:
        yes = True if _YES.fullmatch(said) else False if _NO.fullmatch(said) else None
        yield Reply(question, said, yes)


def _value(holder: Mapping[str, Any]) -> str:
    """The value[x] of an answer, Observation or component in words."""
    quantity = holder.get("valueQuantity")
    if isinstance(quantity, Mapping) and quantity.get("value") is not None:
        amount = f"{quantity.get('comparator') or ''}{quantity['value']}"
        return clean(f"{amount} {quantity.get('unit') or quantity.get('code') or ''}", 60)
    for name in ("valueCodeableConcept", "valueCoding", "valueReference"):
        if said := display(holder.get(name)):
            return said
    for name in ("valueString", "valueDateTime", "valueDate", "valueTime", "valueInteger", "valueDecimal", "valueUri"):
        if holder.get(name) is not None:
            return clean(holder[name], 300)
    return ""
