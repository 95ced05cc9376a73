"""One line of words for each kind of resource in a record, as a clinician would read it out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
_NOT_REAL = frozenset({"entered-in-error", "refuted", "cancelled"})
_DRAFTED = frozenset({"entered-in-error", "cancelled", "registered"})


def real(resources: Iterable[Resource]) -> list[Resource]:
    """Without what the record itself withdraws: entered in error, refuted, cancelled."""
    return [r for r in resources if not _statuses(r) & _NOT_REAL]


def condition(resource: Resource, locale: Locale) -> str:
    """For example "Hypertension (active, 2019-03-01)"."""
    status = next(iter(codes(resource.get("clinicalStatus")) & _CLINICAL.keys()), "")
    since = day(resource.get("onsetDateTime")) or day(resource.get("onsetPeriod")) or day(resource.get("recordedDate"))
    return _with(display(resource.get("code")), _CLINICAL[status].in_(locale) if status else "", since)


def allergy(resource: Resource, locale: Locale) -> str:
    """For example "Penicillin: rash (high)"."""
    reactions = [
        display(m) for r in listed(resource, "reaction") if isinstance(r, Mapping) for m in listed(r, "manifestation")
    ]
    risk = {"high": Text("高风险", "high risk"), "low": Text("低风险", "low risk")}.get(
        str(resource.get("criticality"))
    )
    what = display(resource.get("code"))
    named = f"{what}: {', '.join(r for r in reactions if r)}" if what and any(reactions) else what
    return _with(named, risk.in_(locale) if risk else "")


def medication(resource: Resource) -> str:
    """For example "Metformin 500 mg, 1 tablet twice daily (2024-05-01)"."""
    what = display(resource.get("medicationCodeableConcept")) or display(resource.get("medicationReference"))
    how = clean(first(resource, "dosageInstruction").get("text") or first(resource, "dosage").get("text") or "", 100)
    since = (
        day(resource.get("authoredOn"))
        or day(resource.get("effectiveDateTime"))
        or day(resource.get("effectivePeriod"))
    )
    return _with(f"{what}, {how}" if what and how else what, since)


def observation(resource: Resource) -> str:
    """For example "Heart rate: 88 /min (2026-01-02)"; components are joined; "" where nothing was measured."""
    parts = [
        f"{display(c.get('code'))} {_value(c)}"
        for c in listed(resource, "component")
        if isinstance(c, Mapping) and _value(c)
    ]
    value = "; ".join(p for p in [_value(resource), *parts] if p)
    what = display(resource.get("code"))
    flags = ", ".join(filter(None, (display(i) for i in listed(resource, "interpretation"))))
    when = day(resource.get("effectiveDateTime")) or day(resource.get("effectivePeriod"))
    return _with(f"{what}: {value}", flags, when) if what and value else ""


def report(resource: Resource) -> str:
    """A DiagnosticReport's name and conclusion; "" without a conclusion (its results are Observations of their own)."""
    conclusion = clean(resource.get("conclusion") or "", 240)
    when = day(resource.get("effectiveDateTime")) or day(resource.get("issued"))
    return _with(f"{display(resource.get('code'))}: {conclusion}", when) if conclusion else ""


def procedure(resource: Resource) -> str:
    """A Procedure with its day."""
    return _with(
        display(resource.get("code")), day(resource.get("performedDateTime")) or day(resource.get("performedPeriod"))
    )


def relative(resource: Resource) -> str:
    """A FamilyMemberHistory: who had what."""
    had = [display(c.get("code")) for c in listed(resource, "condition") if isinstance(c, Mapping)]
    named = ", ".join(h for h in had if h)
    return f"{display(resource.get('relationship'))}: {named}" if named else ""


def answers(resource: Resource) -> list[str]:
    """Each answered question of a QuestionnaireResponse as "question: answer", nested ones too."""
    return [f"{question}: {given}" if question else given for question, given in _answered(listed(resource, "item"))]


def lines(resources: Iterable[Resource], say: Any, limit: int, locale: Locale) -> list[Line]:
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


def _answered(items: Sequence[Any], depth: int = 0) -> Iterator[tuple[str, str]]:
    if depth > 10:
        return
    for item in items:
        if not isinstance(item, Mapping):
            continue
        given = [a for a in listed(item, "answer") if isinstance(a, Mapping)]
        said = ", ".join(v for v in (_value(a) for a in given) if v)
        if said:
            yield clean(item.get("text") or item.get("linkId") or "", 160), said
        for answer in given:
            yield from _answered(listed(answer, "item"), depth + 1)
        yield from _answered(listed(item, "item"), depth + 1)


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
    return {True: "yes/是", False: "no/否"}.get(holder.get("valueBoolean"), "")  # type: ignore[arg-type]
