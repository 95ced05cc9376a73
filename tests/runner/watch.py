"""A scenario in small, with a red flag, for runs that are looked at from outside."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from plugins.scenario import (
    Case,
    Draft,
    Fact,
    Finding,
    Prompt,
    RecordQuery,
    Risk,
    Scenario,
    Severity,
    Stage,
    Statement,
    Text,
    Trigger,
)


class WatchAnswer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reasons: Annotated[tuple[Statement, ...], Field(max_length=3)]


class Watch(Scenario[WatchAnswer]):
    """Looks at a vital sign; above 100 it is a red flag, whatever a model says."""

    id: ClassVar[str] = "in_visit.watch"
    version: ClassVar[str] = "1"
    title: ClassVar[Text] = Text("观察", "Watch")
    stage: ClassVar[Stage] = Stage.IN_VISIT
    risk: ClassVar[Risk] = Risk.C
    triggers: ClassVar[tuple[Trigger, ...]] = (Trigger("Observation"),)
    record: ClassVar[tuple[RecordQuery, ...]] = (
        RecordQuery("problems", "Condition", {"patient": "{patient}"}, cap=2, sort="-recorded-date"),
        RecordQuery(
            "notes", "DocumentReference", {"encounter": "{encounter}"}, window=timedelta(days=2), date_param="date"
        ),
    )
    output_model: ClassVar[type[BaseModel]] = WatchAnswer
    deadline: ClassVar[timedelta] = timedelta(minutes=1)
    prompt_version: ClassVar[str] = "watch-1"

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.cases: list[Case] = []

    def prompt(self, case: Case) -> Prompt:
        self.cases.append(case)
        value = case.trigger["valueQuantity"]["value"]
        return Prompt("Say why.", [Fact(f"Observation/{case.trigger['id']}", f"pulse {value}")])

    def rules(self, case: Case) -> Sequence[Finding]:
        if self.broken == "rules":
            raise ValueError(f"could not read {case.trigger}")
        if case.trigger["valueQuantity"]["value"] <= 100:
            return ()
        source = f"Observation/{case.trigger['id']}"
        return [Finding("fast-pulse", Severity.RED_FLAG, Text("脉快", "fast pulse"), (source,), "house rule")]

    def rule_drafts(self, case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
        flag = {"resourceType": "Flag", "status": "active", "code": {"text": "fast pulse"}, **_about(case)}
        return [Draft("flag", flag, findings[0].sources)]

    def drafts(self, case: Case, answer: WatchAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        if self.broken == "silent under 70" and case.trigger["valueQuantity"]["value"] < 70:
            return []
        if self.broken == "nul":
            return [Draft("odd", {"resourceType": "Flag", "code": {"text": "a\u0000b"}, **_about(case)}, ())]
        resource = {
            "resourceType": "RiskAssessment",
            "status": "preliminary",
            "performer": {"reference": "urn:careloom:device"},
            "note": [{"text": reason.text} for reason in answer.reasons] or [{"text": "no reason"}],
            **({"basis": [{"reference": "urn:careloom:draft:flag"}]} if _red(findings) else {}),
            **_about(case),
        }
        return [Draft("risk", resource, (f"Observation/{case.trigger['id']}",))]


def _red(findings: Sequence[Finding]) -> bool:
    return any(finding.severity is Severity.RED_FLAG for finding in findings)


def _about(case: Case) -> dict[str, Any]:
    return {"subject": {"reference": case.trigger["subject"]["reference"]}}
