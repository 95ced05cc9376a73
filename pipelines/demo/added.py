"""What the demo adds to a few patients' journeys, so that every scenario is seen at work at least once.

Everything here is made up by the demo and its ids begin with "demo-": a patient's message, vital signs, a short note,
an order and an overdue supply. The medicines are those of the patient's own record. Only a few patients are given any
of it: each event costs a model's answer.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pipelines.demo.hospital import DemoPatient
from pipelines.demo.journeys import Step
from plugins.scenario import Locale, Stage, Text

#: How many patients are given each.
_ASKING, _WATCHED, _NOTED, _TREATED = 2, 1, 2, 2
_QUESTIONS = (
    Text(zh="出院后多久能复印病历？", en="When can I get copies of my medical record after discharge?"),
    Text(zh="我这个药能不能停？", en="Can I stop taking my medicine now?"),
)
_NOTE = Text(
    zh="入院记录\n主诉：发热咳嗽三天。\n现病史：三天前受凉后发热，伴咳嗽。",
    en="Admission note\nChief complaint: fever and cough for three days.",
)
_NOTE_TITLE = Text(zh="入院记录", en="Admission note")
_LOINC, _UCUM = "http://loinc.org", "http://unitsofmeasure.org"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
#: (LOINC code, display, number, unit in words, UCUM code): NEWS2 of 7, with oxygen given.
_VITALS = (
    ("9279-1", "Respiratory rate", 23, "breaths/min", "/min"),
    ("2708-6", "Oxygen saturation in Arterial blood", 94, "%", "%"),
    ("3151-8", "Inhaled oxygen flow rate", 2, "L/min", "L/min"),
    ("8867-4", "Heart rate", 112, "beats/min", "/min"),
    ("8310-5", "Body temperature", 38.4, "Cel", "Cel"),
)


def added(people: Sequence[DemoPatient], locale: Locale, now: datetime) -> list[Step]:
    """The added steps of all patients.

    Args:
        people: in their fixed order.
        now: when the demo runs; vital signs and an overdue supply are counted from it.
    """
    living = [person for person in people if person.grown_up]
    treated = [person for person in living if person.medicine][:_TREATED]
    steps = [_question(person, n, locale, now) for n, person in enumerate(living[:_ASKING])]
    steps += [step for person in living[:_WATCHED] for step in _vital_signs(person, now)]
    steps += [_note(person, n, locale, now) for n, person in enumerate(living[:_NOTED])]
    for n, person in enumerate(treated):
        steps += [_order(person, n, now), _supply(person, n, now)]
    return steps


def _question(person: DemoPatient, n: int, locale: Locale, now: datetime) -> Step:
    return Step(
        Stage.PRE_VISIT,
        {
            "resourceType": "Communication",
            "id": f"demo-question-{n:02}",
            "status": "completed",
            "subject": _subject(person),
            "sender": _subject(person),
            "sent": _at(now),
            "payload": [{"contentString": _QUESTIONS[n % len(_QUESTIONS)].in_(locale)}],
        },
    )


def _vital_signs(person: DemoPatient, now: datetime) -> Iterator[Step]:
    """One round of the ward: an Observation each, blood pressure with its two components."""
    for n, (code, display, value, unit, ucum) in enumerate(_VITALS):
        number = {"value": value, "unit": unit, "system": _UCUM, "code": ucum}
        yield _observed(person, f"{n:02}", now, _loinc(code, display), {"valueQuantity": number})
    alert = {"coding": [{"system": "http://snomed.info/sct", "code": "248234008", "display": "Mentally alert"}]}
    yield _observed(person, "acvpu", now, _loinc("67775-7", "Level of responsiveness"), {"valueCodeableConcept": alert})
    pressures = [
        {
            "code": _loinc(code, display),
            "valueQuantity": {"value": value, "unit": "mmHg", "system": _UCUM, "code": "mm[Hg]"},
        }
        for code, display, value in (
            ("8480-6", "Systolic blood pressure", 108),
            ("8462-4", "Diastolic blood pressure", 64),
        )
    ]
    panel = _loinc("85354-9", "Blood pressure panel with all children optional")
    yield _observed(person, "pressure", now, panel, {"component": pressures})


def _observed(person: DemoPatient, name: str, now: datetime, code: Mapping[str, Any], value: Mapping[str, Any]) -> Step:
    return Step(
        Stage.IN_VISIT,
        {
            "resourceType": "Observation",
            "id": f"demo-vital-{name}",
            "status": "final",
            "category": [{"coding": [{"system": _CATEGORY, "code": "vital-signs"}]}],
            "code": code,
            "subject": _subject(person),
            "effectiveDateTime": _at(now - timedelta(minutes=5)),
            **value,
        },
    )


def _note(person: DemoPatient, n: int, locale: Locale, now: datetime) -> Step:
    """A ward note that lacks most of its mandatory parts."""
    data = base64.b64encode(_NOTE.in_(locale).encode()).decode("ascii")
    return Step(
        Stage.IN_VISIT,
        {
            "resourceType": "DocumentReference",
            "id": f"demo-note-{n:02}",
            "status": "current",
            "type": {"text": _NOTE_TITLE.in_(locale)},
            "subject": _subject(person),
            "date": _at(now),
            "content": [{"attachment": {"contentType": "text/plain; charset=utf-8", "data": data}}],
        },
    )


def _order(person: DemoPatient, n: int, now: datetime) -> Step:
    """The medicine of the patient's record, ordered once more."""
    return Step(
        Stage.IN_VISIT,
        {
            "resourceType": "MedicationRequest",
            "id": f"demo-order-{n:02}",
            "status": "draft",
            "intent": "order",
            "medicationCodeableConcept": person.medicine,
            "subject": _subject(person),
            "authoredOn": _at(now),
        },
    )


def _supply(person: DemoPatient, n: int, now: datetime) -> Step:
    """A month's supply of that medicine, handed over two months ago."""
    return Step(
        Stage.POST_VISIT,
        {
            "resourceType": "MedicationDispense",
            "id": f"demo-supply-{n:02}",
            "status": "completed",
            "medicationCodeableConcept": person.medicine,
            "subject": _subject(person),
            "whenHandedOver": _at(now - timedelta(days=60)),
            "daysSupply": {"value": 30, "unit": "d", "system": _UCUM, "code": "d"},
        },
    )


def _subject(person: DemoPatient) -> dict[str, str]:
    return {"reference": f"Patient/{person.id}"}


def _loinc(code: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": _LOINC, "code": code, "display": display}], "text": display}


def _at(when: datetime) -> str:
    return when.replace(microsecond=0).isoformat()
