"""Red flags as FHIR: a Flag for each, and one Task that asks a person to look now. No model has a part in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from plugins import red_flags
from plugins.drafting import found, trigger_source
from plugins.fhir_text import DEVICE, cited, coded, draft, instant, narrative, references, subject
from plugins.scenario import Case, Draft, Finding, Severity, Text
from plugins.tasks import task

LEVELS: dict[str, Text] = {
    "1": Text("Ⅰ级(急危,立即)", "Level 1 (at once)"),
    "2": Text("Ⅱ级(急重,10 分钟内)", "Level 2 (within 10 minutes)"),
    "3": Text("Ⅲ级(急症,30 分钟内)", "Level 3 (within 30 minutes)"),
    "4": Text("Ⅳ级(亚急症/非急症,60 分钟内或更久)", "Level 4 (within 60 minutes or later)"),
    "none": Text("未定级:没有有据的理由,请人工分诊", "No level: no reason has support, triage by a person"),
}
PRIORITY = {"1": "stat", "2": "asap", "3": "urgent", "4": "routine", "none": "urgent"}
_MINUTES = {"1": 0, "2": 10}
#: HL7's extension for what a flag rests on (http://hl7.org/fhir/R4/extension-flag-detail.html).
FLAG_DETAIL = "http://hl7.org/fhir/StructureDefinition/flag-detail"
#: System of a Flag's code: the rule that raised it.
FLAG_SYSTEM = "urn:careloom:red-flag"


@dataclass(frozen=True, slots=True)
class Review:
    """What a person is asked to do about red flags.

    Attributes:
        title: of the Task.
        urgency: in words, before the flags.
        priority: code of FHIR's request-priority.
        within: until when, from now.
    """

    title: Text
    urgency: Text
    priority: str
    within: timedelta


def raise_flags(case: Case, findings: Sequence[Finding], review: Review | None = None) -> Sequence[Draft]:
    """The drafts of every red flag among `findings`; none where there is no flag, or nobody to raise it for.

    Args:
        review: what the Task asks for; for None what the triage rules ask for.
    """
    patient = subject(case)
    flags = [f for f in findings if f.severity is Severity.RED_FLAG]
    if patient is None or not flags:
        return ()
    task = _urgent_review(case, flags, patient, review or _triage(flags))
    return [*(flag(case, finding, patient) for finding in flags), task]


def flag(case: Case, finding: Finding, patient: str) -> Draft:
    """One active Flag, with the resources that its finding rests on."""
    category = "http://terminology.hl7.org/CodeSystem/flag-category"
    resource = {
        "resourceType": "Flag",
        "text": narrative([(Text("红旗", "Red flag").in_(case.locale), found([finding], case.locale))], case.locale),
        **_details(finding),
        "status": "active",
        "category": [coded(Text("临床", "Clinical").in_(case.locale), (category, "clinical", "Clinical"))],
        "code": coded(finding.text.in_(case.locale), (FLAG_SYSTEM, finding.code, None)),
        "subject": {"reference": patient},
        "period": {"start": instant(case.now)},
        "author": {"reference": DEVICE},
    }
    return Draft(f"red-flag-{finding.code}", resource, cited(finding.sources))


def _details(finding: Finding) -> dict[str, Any]:
    rests_on = references(finding.sources)
    return {"extension": [{"url": FLAG_DETAIL, "valueReference": r} for r in rests_on]} if rests_on else {}


def _triage(flags: Sequence[Finding]) -> Review:
    level = red_flags.level(flags) or "2"
    title = Text("紧急人工复核: 分诊红旗", "Urgent review by a person: triage red flag")
    return Review(title, LEVELS[level], PRIORITY[level], timedelta(minutes=_MINUTES[level]))


def _urgent_review(case: Case, flags: Sequence[Finding], patient: str, review: Review) -> Draft:
    said = [review.urgency.in_(case.locale), *(f.text.in_(case.locale) for f in flags)]
    resource = {
        **task(
            case,
            patient,
            title=review.title,
            code="urgent-review",
            shown=found(flags, case.locale),
            said="; ".join(said),
            priority=review.priority,
            within=review.within,
        ),
        "input": [
            {
                "type": coded(Text("红旗", "red flag").in_(case.locale)),
                "valueReference": {"reference": draft(f"red-flag-{finding.code}")},
            }
            for finding in flags
        ],
    }
    return Draft("urgent-review", resource, trigger_source(case))
