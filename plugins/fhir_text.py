"""Text in and out of FHIR: what a resource says in words, and words as XHTML narrative, dates and references."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from fhir_adapters.patient import patient_of
from fhir_adapters.references import literal
from plugins.scenario import Case, Locale, Resource, Text

DEVICE = "urn:careloom:device"
"""Stands for the model's Device in a draft; write-back puts the real reference in its place."""

NOT_RECORDED = Text(zh="病历未记载", en="not recorded")

_XHTML = "http://www.w3.org/1999/xhtml"
_NOT_A_BOUND = re.compile(r"[<>](?!\s?=?\s?\d)")
_NOT_TEXT = {"Cc", "Cf", "Cs", "Co", "Cn"}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a narrative with the resources ("Type/id") that it rests on."""

    text: str
    sources: tuple[str, ...] = ()


def clean(value: object, limit: int = 300) -> str:
    """`value` as one line: no control, format or surrogate characters, single spaces, at most `limit` characters.

    Source: FHIR R4 `string` (no control characters), XML 1.0 `Char`.
    """
    text = " ".join(str(value)[: limit * 8].split())
    if not text.isprintable():
        text = " ".join("".join(c for c in text if c == " " or unicodedata.category(c) not in _NOT_TEXT).split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def tagless(text: str) -> str:
    """`text` in which "<" and ">" stay only where they bound a number ("<5", ">= 38"): no markup, no model token."""
    return _NOT_A_BOUND.sub(lambda m: "‹" if m[0] == "<" else "›", text)


def display(concept: object, limit: int = 120) -> str:
    """The words of a CodeableConcept, Coding or Reference: its text, else a display, else a code, else ""."""
    if not isinstance(concept, Mapping):
        return ""
    codings = [c for c in listed(concept, "coding") if isinstance(c, Mapping)]
    candidates = [concept.get("text"), concept.get("display")]
    candidates += [c.get("display") for c in codings] + [c.get("code") for c in codings] + [concept.get("code")]
    return next((clean(c, limit) for c in candidates if isinstance(c, str) and c.strip()), "")


def codes(concept: object) -> frozenset[str]:
    """Every code of a CodeableConcept, whatever its system."""
    if not isinstance(concept, Mapping):
        return frozenset()
    return frozenset(str(c["code"]) for c in listed(concept, "coding") if isinstance(c, Mapping) and c.get("code"))


def listed(resource: Mapping[str, Any], name: str) -> Sequence[Any]:
    """The element as a list, also where a sender wrote a single value or none."""
    value = resource.get(name)
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def first(resource: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The first object of a repeating element, or an empty one."""
    return next((v for v in listed(resource, name) if isinstance(v, Mapping)), {})


def source_of(resource: Resource) -> str:
    """ "Type/id", or the type alone where the resource has no id yet (nothing can refer to it then)."""
    kind, identity = resource.get("resourceType", ""), resource.get("id")
    return f"{kind}/{identity}" if identity else str(kind)


def cited(sources: Iterable[str]) -> tuple[str, ...]:
    """Those of `sources` that are literal FHIR references, once each, in order."""
    return tuple(dict.fromkeys(s for s in sources if (found := literal(s)) and found.relative == s))


def references(sources: Iterable[str]) -> list[dict[str, str]]:
    """`sources` as FHIR References; what cannot be referred to is left out."""
    return [{"reference": s} for s in cited(sources)]


def draft(name: str) -> str:
    """The reference by which one draft of a case names another."""
    return f"urn:careloom:draft:{name}"


def subject(case: Case) -> str | None:
    """ "Patient/<id>" of the case: the patient read, else whom the trigger is about; None where nobody is named."""
    return patient_of(case.patient or {}) or patient_of(case.trigger)


def coded(text: str, *codings: tuple[str, str, str | None]) -> dict[str, Any]:
    """A CodeableConcept of (system, code, display) triples with its text."""
    listing = [{"system": s, "code": c} | ({"display": d} if d else {}) for s, c, d in codings]
    return ({"coding": listing} if listing else {}) | {"text": text}


def narrative(sections: Iterable[tuple[str, Iterable[Line]]], locale: Locale, *, head: str = "") -> dict[str, str]:
    """A generated Narrative: (title, lines) sections, every text escaped, every source a link.

    Source: FHIR R4 2.4 (narrative): XHTML without active content, txt-1 and txt-2.
    """
    language = "zh-CN" if locale == "zh" else "en"
    parts = [f'<div xmlns="{_XHTML}" lang="{language}" xml:lang="{language}">']
    parts += [f"<p><b>{_escape(head)}</b></p>"] if head else []
    for title, lines in sections:
        parts += [f"<p><b>{_escape(title)}</b></p>"] if title else []
        items = "".join(f"<li>{_escape(line.text)}{_links(line.sources)}</li>" for line in lines)
        parts.append(f"<ul>{items}</ul>" if items else f"<p>{_escape(NOT_RECORDED.in_(locale))}</p>")
    return {"status": "generated", "div": "".join([*parts, "</div>"])}


def plain(line: Line) -> str:
    """One line as plain text, its sources in brackets behind it."""
    found = cited(line.sources)
    return f"{line.text} [{', '.join(found)}]" if found else line.text


def day(value: object) -> str:
    """The date part of a FHIR date, dateTime, instant or Period (its start); "" where there is none."""
    if isinstance(value, Mapping):
        value = value.get("start") or value.get("end")
    return value[:10] if isinstance(value, str) and re.match(r"\d{4}", value) else ""


def moment(value: object) -> datetime | None:
    """A FHIR date, dateTime or instant as an aware datetime; None where it is absent, partial or no date."""
    if not isinstance(value, str):
        return None
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def instant(when: datetime) -> str:
    """A FHIR instant (also a valid dateTime), to the second."""
    return when.replace(microsecond=0).isoformat()


def age_in_months(patient: Resource | None, now: datetime) -> int | None:
    """Completed months of life; a partial birth date counts from its earliest day; None where unknown or not past."""
    born = str((patient or {}).get("birthDate") or "")
    match = re.fullmatch(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", born)
    if not match:
        return None
    try:
        birth = date(int(match[1]), int(match[2] or 1), int(match[3] or 1))
    except ValueError:
        return None
    months = (now.year - birth.year) * 12 + now.month - birth.month - (now.day < birth.day)
    return months if 0 <= months <= 130 * 12 else None


def who(patient: Resource | None, now: datetime, locale: Locale) -> str:
    """Sex and age in words, for example "女,46岁" or "female, 5 months"; names stay out."""
    sexes = {"male": Text("男", "male"), "female": Text("女", "female"), "other": Text("其他性别", "other sex")}
    sex = sexes.get(str((patient or {}).get("gender")), Text("性别未记载", "sex not recorded")).in_(locale)
    months = age_in_months(patient, now)
    if months is None:
        age = Text("年龄未记载", "age not recorded")
    elif months < 24:
        age = Text(f"{months}个月", f"{months} months")
    else:
        age = Text(f"{months // 12}岁", f"{months // 12} years")
    return Text(f"{sex},{age.zh}", f"{sex}, {age.en}").in_(locale)


def deceased(patient: Resource | None) -> bool:
    """Whether the record says that the patient has died."""
    known = patient or {}
    return known.get("deceasedBoolean") is True or bool(known.get("deceasedDateTime"))


def _escape(text: str) -> str:
    return html.escape(clean(text, 4000), quote=True)


def _links(sources: Iterable[str]) -> str:
    links = ", ".join(f'<a href="{s}">{s}</a>' for s in cited(sources))
    return f" [{links}]" if links else ""
