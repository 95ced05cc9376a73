"""What happens to each patient in the demo: three stages of care as FHIR resources, the same at every run.

The patients and their records are the generators'; the complaints are written here, and chosen by the patient's place
in the list, so that a second run plays exactly the same events. What is added for single scenarios: `added.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fhir_adapters.event import ClinicalEvent, FhirVersion
from plugins.scenario import Locale, Stage, Text

_COMPLAINTS = (
    Text(
        zh="发热、咳嗽三天，痰少，无胸闷气促",
        en="Fever and cough for three days, little sputum, no shortness of breath",
    ),
    Text(zh="突发胸骨后压榨样疼痛一小时，伴大汗", en="Sudden crushing chest pain for one hour with sweating"),
    Text(zh="反复上腹部隐痛两周，餐后加重", en="Dull upper abdominal pain for two weeks, worse after meals"),
    Text(zh="右膝关节疼痛一月，上下楼加重", en="Right knee pain for a month, worse on stairs"),
    Text(
        zh="头晕三天，血压控制不佳，否认肢体无力",
        en="Dizzy for three days, blood pressure not controlled, denies weakness of the limbs",
    ),
    Text(zh="皮疹伴瘙痒五天，无呼吸困难", en="Itching rash for five days, no difficulty breathing"),
    Text(
        zh="突然右侧肢体无力、言语不清半小时",
        en="Sudden weakness of the right arm and leg and slurred speech for half an hour",
    ),
    Text(zh="复诊开药，近期无不适", en="Follow-up for a prescription, no complaints recently"),
)
_QUESTION = Text(zh="您这次来最主要的不适是什么？", en="What troubles you most today?")
_DURATION = Text(zh="这种情况持续多久了？", en="How long has this been going on?")
_DAYS = Text(zh="三天左右", en="About three days")

#: Every third patient also fills in a questionnaire before the visit.
QUESTIONNAIRE_EVERY = 3
#: Every fourth patient's appointment is booked at once, which starts a brief and health information beside triage; the
#: others' is pending. Each costs a model's answer.
BOOKED_EVERY = 4


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happens: a resource version written into the hospital's FHIR server.

    Attributes:
        stage: the stage of care.
        resource: FHIR R4 JSON with a fixed id.
        version: which version of that id it is, from 1.
    """

    stage: Stage
    resource: Mapping[str, Any]
    version: int = 1

    @property
    def path(self) -> str:
        """ "Type/id"."""
        return f"{self.resource['resourceType']}/{self.resource['id']}"


def journey(patient_id: str, problem: str | None, number: int, locale: Locale) -> Sequence[Step]:
    """A patient's steps through the three stages, in order.

    Args:
        patient_id: logical id of the Patient.
        problem: what the record has as the newest problem; the reason of the admission.
        number: place of the patient in the list, from 0.
        locale: language of the complaints.
    """
    subject = {"reference": f"Patient/{patient_id}"}
    complaint = _COMPLAINTS[number % len(_COMPLAINTS)].in_(locale)
    start = f"2026-11-{1 + number % 20:02}T09:00:00+08:00"
    appointment = {
        "resourceType": "Appointment",
        "id": f"demo-appointment-{number:02}",
        "status": "pending" if number % BOOKED_EVERY else "booked",
        "reasonCode": [{"text": complaint}],
        "start": start,
        "end": start.replace("T09:00", "T09:30"),
        "participant": [{"actor": subject, "status": "needs-action" if number % BOOKED_EVERY else "accepted"}],
    }
    answers = {
        "resourceType": "QuestionnaireResponse",
        "id": f"demo-answers-{number:02}",
        "status": "completed",
        "subject": subject,
        "authored": start,
        "item": [
            {"linkId": "1", "text": _QUESTION.in_(locale), "answer": [{"valueString": complaint}]},
            {"linkId": "2", "text": _DURATION.in_(locale), "answer": [{"valueString": _DAYS.in_(locale)}]},
        ],
    }
    admitted = {
        "resourceType": "Encounter",
        "id": f"demo-encounter-{number:02}",
        "status": "in-progress",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "subject": subject,
        "period": {"start": start},
        "reasonCode": [{"text": problem or complaint}],
    }
    discharged = {
        **admitted,
        "status": "finished",
        "period": {"start": start, "end": start.replace("T09:00", "T17:00")},
    }
    steps = [Step(Stage.PRE_VISIT, appointment)]
    if number % QUESTIONNAIRE_EVERY == 0:
        steps.append(Step(Stage.PRE_VISIT, answers))
    return [*steps, Step(Stage.IN_VISIT, admitted), Step(Stage.POST_VISIT, discharged, version=2)]


def identity(step: Step, source: str, fhir_version: FhirVersion, version_id: str) -> str:
    """The event identity that the step has once the FHIR server gave it a version."""
    resource = step.resource
    event = ClinicalEvent(source, fhir_version, resource["resourceType"], resource["id"], version_id, None, None, b"")
    return event.identity
