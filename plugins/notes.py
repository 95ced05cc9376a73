"""A clinical note of titled sections, as a Composition and as a DocumentReference with the same text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from plugins.drafting import AI_DRAFT, all_sources, trigger_source
from plugins.fhir_text import DEVICE, NOT_RECORDED, Line, coded, draft, instant, narrative, plain, references
from plugins.scenario import Case, Text

LOINC = "http://loinc.org"

_EMPTY_REASON = "http://terminology.hl7.org/CodeSystem/list-empty-reason"


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a note.

    Attributes:
        title: heading.
        loinc: LOINC code of the section, or None where LOINC has none that fits.
        lines: what the record says; without any the section says "not recorded".
    """

    title: Text
    loinc: str | None
    lines: Sequence[Line]


def composition(
    case: Case, patient: str, title: Text, kind: tuple[str, str, str | None], sections: Sequence[Section]
) -> dict[str, Any]:
    """The note as a preliminary Composition whose sections name their resources as entries.

    Args:
        patient: "Patient/<id>".
        kind: (system, code, display) of the document type.
    """
    return {
        "resourceType": "Composition",
        "text": narrative(_titled(case, sections), case.locale, head=AI_DRAFT.in_(case.locale)),
        "status": "preliminary",
        "type": coded(title.in_(case.locale), kind),
        "subject": {"reference": patient},
        **encounter_of(case),
        "date": instant(case.now),
        "author": [{"reference": DEVICE}],
        "title": title.in_(case.locale),
        "section": [_section(case, part) for part in sections],
    }


def document(
    case: Case,
    patient: str,
    title: Text,
    kind: tuple[str, str, str | None],
    sections: Sequence[Section],
    *,
    same_as: str | None = None,
) -> dict[str, Any]:
    """A note as a preliminary DocumentReference with its text inside.

    Args:
        same_as: name of the draft that holds the same note as a Composition; None where there is none.
    """
    encounter = encounter_of(case)
    context = {
        **({"encounter": [encounter["encounter"]]} if encounter else {}),
        **({"related": [{"reference": draft(same_as)}]} if same_as else {}),
    }
    attachment = {
        "contentType": "text/plain; charset=utf-8",
        "language": "zh-CN" if case.locale == "zh" else "en",
        "data": base64.b64encode(as_text(case, title, sections).encode()).decode("ascii"),
        "title": title.in_(case.locale),
    }
    return {
        "resourceType": "DocumentReference",
        "text": narrative(_titled(case, sections), case.locale, head=AI_DRAFT.in_(case.locale)),
        "status": "current",
        "docStatus": "preliminary",
        "type": coded(title.in_(case.locale), kind),
        "subject": {"reference": patient},
        "date": instant(case.now),
        "author": [{"reference": DEVICE}],
        "description": title.in_(case.locale),
        "content": [{"attachment": attachment}],
        **({"context": context} if context else {}),
    }


def as_text(case: Case, title: Text, sections: Sequence[Section]) -> str:
    """The note as plain text; each line names in brackets what it rests on."""
    parts = [f"{title.in_(case.locale)}\n{AI_DRAFT.in_(case.locale)}"]
    for heading, shown in _titled(case, sections):
        said = "\n".join(f"- {plain(line)}" for line in shown) or NOT_RECORDED.in_(case.locale)
        parts.append(f"【{heading}】\n{said}")
    return "\n\n".join(parts) + "\n"


def encounter_of(case: Case) -> dict[str, Any]:
    """{"encounter": Reference} of a case that an Encounter triggered; {} where it has no id."""
    own = references(trigger_source(case)) if case.trigger.get("resourceType") == "Encounter" else []
    return {"encounter": own[0]} if own else {}


def _section(case: Case, part: Section) -> dict[str, Any]:
    """A section names its resources as entries, or gives the reason why it is empty (cmp-1, cmp-2)."""
    title = part.title.in_(case.locale)
    section: dict[str, Any] = {"title": title, "text": narrative([("", part.lines)], case.locale)}
    if part.loinc:
        section["code"] = coded(title, (LOINC, part.loinc, None))
    entries = references(all_sources(part.lines))
    if entries:
        section["entry"] = entries
    elif not part.lines:
        section["emptyReason"] = coded(NOT_RECORDED.in_(case.locale), (_EMPTY_REASON, "unavailable", "Unavailable"))
    return section


def _titled(case: Case, sections: Sequence[Section]) -> list[tuple[str, Sequence[Line]]]:
    return [(part.title.in_(case.locale), part.lines) for part in sections]
