"""A message as a Communication that waits in preparation: nothing is sent until a person sends it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plugins.drafting import AI_DRAFT
from plugins.fhir_text import DEVICE, Line, coded, narrative, plain, references, tagless
from plugins.patient_language import translator_needed
from plugins.scenario import Case, Locale, Text

#: What every message to a patient ends with.
URGENT = Text(
    zh="如出现胸痛、呼吸困难、意识不清、大量出血、肢体无力或症状明显加重,请立即就医或拨打 120。",
    en=(
        "Seek help at once or call the emergency number for chest pain, trouble breathing, confusion, heavy bleeding, "
        "weakness of a limb, or if you get clearly worse."
    ),
)
_CATEGORY = "http://terminology.hl7.org/CodeSystem/communication-category"


def communication(
    case: Case,
    patient: str,
    *,
    title: Text,
    kind: tuple[str, str],
    sections: Iterable[tuple[str, Sequence[Line]]],
    text: str,
    sources: Iterable[str],
    language: Locale | None = None,
    head: Text | None = None,
) -> dict[str, Any]:
    """A Communication about a patient; who is to receive it, and what it answers, the caller adds.

    Args:
        patient: "Patient/<id>".
        title: what kind of message it is, for the reader of a list.
        kind: code and display of HL7's communication-category.
        sections: of the narrative.
        text: the message itself.
        sources: what it rests on; those that are resources stand in `about`.
        language: of the message; that of the house for None.
        head: first line of the narrative.
    """
    written = language or case.locale
    about = references(sources)
    return {
        "resourceType": "Communication",
        "text": narrative(sections, written, head=head.in_(written) if head else ""),
        "language": "zh-CN" if written == "zh" else "en",
        "status": "preparation",
        "category": [coded(title.in_(case.locale), (_CATEGORY, *kind))],
        "subject": {"reference": patient},
        **({"about": about} if about else {}),
        "sender": {"reference": DEVICE},
        "payload": [{"contentString": text}],
        "note": [{"text": AI_DRAFT.in_(case.locale)}],
    }


def to_patient(case: Case, patient: str, *, language: Locale, **given: Any) -> dict[str, Any]:
    """A `communication` for the patient; staff are told where it came out in a language that is not the patient's."""
    resource = communication(case, patient, language=language, **given)
    hints = [{"text": tagless(plain(line))} for line in translator_needed(case, language)]
    return {**resource, "recipient": [{"reference": patient}], "note": [*resource["note"], *hints]}


def listing(lines: Iterable[Line]) -> list[str]:
    """Lines of a message: without what they rest on, which is for staff."""
    return [f"- {line.text}" for line in lines]
