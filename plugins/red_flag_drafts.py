"""Red flags as FHIR: a Flag for each, and one Task that asks a person to look now. No model has a part in it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from plugins import red_flags
from plugins.drafting import found, trigger_source
from plugins.fhir_text import DEVICE, cited, clean, coded, draft, instant, narrative, references, subject
from plugins.scenario import Case, Draft, Finding, Severity, Text

LEVELS: dict[str, Text] = {
    "1": Text("Ⅰ级(急危,立即)", "Level 1 (at once)"),
    "2": Text("Ⅱ级(急重,10 分钟内)", "Level 2 (within 10 minutes)"),
    "3": Text("Ⅲ级(急症,30 分钟内)", "Level 3 (within 30 minutes)"),
    "4": Text("Ⅳ级(亚急症/非急症,60 分钟内或更久)", "Level 4 (within 60 minutes or later)"),
    "none": Text("未定级:没有有据的理由,请人工分诊", "No level: no reason has support, triage by a person"),
}
PRIORITY = {"1": "stat", "2": "asap", "3": "urgent", "4": "routine", "none": "urgent"}
_MINUTES = {"1": 0, "2": 10}


def raise_flags(case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
    """The drafts of every red flag among `findings`; none where there is no flag, or nobody to raise it for."""
    patient = subject(case)
    flags = [f for f in findings if f.severity is Severity.RED_FLAG]
    if patient is None or not flags:
        return ()
    return [*(_flag(case, finding, patient) for finding in flags), _urgent_review(case, flags, patient)]


def _flag(case: Case, finding: Finding, patient: str) -> Draft:
    category = "http://terminology.hl7.org/CodeSystem/flag-category"
    resource = {
        "resourceType": "Flag",
        "text": narrative([(Text("红旗", "Red flag").in_(case.locale), found([finding], case.locale))], case.locale),
        "status": "active",
        "category": [coded(Text("临床", "Clinical").in_(case.locale), (category, "clinical", "Clinical"))],
        "code": coded(finding.text.in_(case.locale), ("urn:careloom:red-flag", finding.code, None)),
        "subject": {"reference": patient},
        "period": {"start": instant(case.now)},
        "author": {"reference": DEVICE},
    }
    return Draft(f"red-flag-{finding.code}", resource, cited(finding.sources))


def _urgent_review(case: Case, flags: Sequence[Finding], patient: str) -> Draft:
    level = red_flags.level(flags) or "2"
    title = Text("紧急人工复核: 分诊红旗", "Urgent review by a person: triage red flag").in_(case.locale)
    shown = found(flags, case.locale)
    said = [LEVELS[level].in_(case.locale), *(f.text.in_(case.locale) for f in flags)]
    focus = references(trigger_source(case))
    due = case.now + timedelta(minutes=_MINUTES[level])
    resource = {
        "resourceType": "Task",
        "text": narrative([(title, shown)], case.locale),
        "status": "requested",
        "intent": "proposal",
        "priority": PRIORITY[level],
        "code": coded(title, ("urn:careloom:task", "urgent-review", None)),
        "description": clean("; ".join(said), 2000),
        **({"focus": focus[0]} if focus else {}),
        "for": {"reference": patient},
        "authoredOn": instant(case.now),
        "requester": {"reference": DEVICE},
        "restriction": {"period": {"start": instant(case.now), "end": instant(due)}},
        "input": [
            {
                "type": coded(Text("红旗", "red flag").in_(case.locale)),
                "valueReference": {"reference": draft(f"red-flag-{finding.code}")},
            }
            for finding in flags
        ],
    }
    return Draft("urgent-review", resource, trigger_source(case))
