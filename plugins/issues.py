"""What a rule found as a FHIR DetectedIssue: the places quoted, their resources named, the rule's source beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from plugins.drafting import AI_DRAFT, found
from plugins.fhir_text import DEVICE, Line, cited, clean, coded, instant, narrative, references, subject
from plugins.scenario import Case, Draft, Finding, Severity, Text

ACT_CODE = "http://terminology.hl7.org/CodeSystem/v3-ActCode"

_SEVERITY = {Severity.RED_FLAG: "high", Severity.WARNING: "moderate", Severity.INFO: "low"}
_PLACES = Text("原文对照", "What is recorded")


@dataclass(frozen=True, slots=True)
class Issue:
    """A finding with the places that it stands on.

    Attributes:
        finding: what is wrong, and by which rule.
        places: each place quoted, with the resource that it stands in.
        kind: code of v3-ActCode (detected issue), or None where none fits.
    """

    finding: Finding
    places: tuple[Line, ...]
    kind: str | None = None


def issue(
    code: str, severity: Severity, text: Text, places: Iterable[Line], citation: str, kind: str | None = None
) -> Issue:
    """An issue whose finding rests on the places that it quotes."""
    quoted = tuple(places)
    sources = cited(source for place in quoted for source in place.sources)
    return Issue(Finding(code, severity, text, sources, citation), quoted, kind)


def at_once(issues: Iterable[Issue]) -> list[Issue]:
    """Those that are written before the model is asked."""
    return [each for each in issues if each.finding.severity is Severity.RED_FLAG]


def later(issues: Iterable[Issue]) -> list[Issue]:
    """Those that are written with the model's answer."""
    return [each for each in issues if each.finding.severity is not Severity.RED_FLAG]


def drafts_of(case: Case, issues: Iterable[Issue]) -> list[Draft]:
    """A DetectedIssue each, named after its rule, the second of one rule with a number; none where nobody is named."""
    patient = subject(case)
    drafts: dict[str, Draft] = {}
    for each in issues if patient else ():
        same = sum(1 for name in drafts if name.split("~")[0] == each.finding.code)
        name = f"{each.finding.code}~{same + 1}" if same else each.finding.code
        drafts[name] = Draft(name, _resource(case, each, str(patient)), each.finding.sources)
    return list(drafts.values())


def _resource(case: Case, each: Issue, patient: str) -> dict[str, Any]:
    locale, finding = case.locale, each.finding
    title = finding.text.in_(locale)
    sections = [(title, found([finding], locale)), (_PLACES.in_(locale), each.places)]
    codings = [("urn:careloom:issue", finding.code, None), *([(ACT_CODE, each.kind, None)] if each.kind else [])]
    evidence = [_quoted(place) for place in each.places]
    return {
        "resourceType": "DetectedIssue",
        "text": narrative(sections, locale, head=AI_DRAFT.in_(locale)),
        "status": "preliminary",
        "code": coded(title, *codings),
        "severity": _SEVERITY[finding.severity],
        "patient": {"reference": patient},
        "identifiedDateTime": instant(case.now),
        "author": {"reference": DEVICE},
        **({"implicated": references(finding.sources)} if finding.sources else {}),
        "evidence": evidence,
        "detail": clean("; ".join(line.text for line in found([finding], locale)), 2000),
    }


def _quoted(place: Line) -> dict[str, Any]:
    sources = references(place.sources)
    return {"code": [coded(clean(place.text))], **({"detail": sources} if sources else {})}
