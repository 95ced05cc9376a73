"""in_visit.order_safety (用药安全审查): what speaks against a medicine that is being ordered.

Every check is a rule with a published source (`plugins/order_safety_rules.toml`); a contraindication is written before
the model is asked. The model only words, for the prescriber, what in the record bears on what the rules found. Where
they found nothing, nothing is written: silence is no clearance, and the card says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from plugins import order_safety_rules
from plugins.drafting import (
    AI_DRAFT,
    all_sources,
    background,
    found,
    person,
    rule_facts,
    stated,
    trigger_source,
    truncated_note,
)
from plugins.fhir_text import Line, cited, plain, source_of, subject
from plugins.hookspecs import hookimpl
from plugins.issues import at_once, drafts_of, later
from plugins.messages import communication
from plugins.order_safety_rules import EGFR
from plugins.record_lines import facts, lines, medication, observation, real
from plugins.record_queries import ALLERGIES as ALLERGY_QUERY
from plugins.record_queries import MEDICATIONS as MEDICATION_QUERY
from plugins.record_queries import PROBLEMS as PROBLEM_QUERY
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

_TITLE = Text("用药安全提示", "Order safety card")
_FOUND = Text("规则发现", "Found by rule")
_CONTEXT = Text("相关病历", "From the record")
_LIMITS = Text(
    zh="仅核查所列规则;未提示不等于安全。",
    en="Only the listed rules were checked; no alert is no clearance.",
)
_ORDER = Text("本次医嘱", "This order")
_RENAL = Text("肾功能", "Renal function")
_INSTRUCTION = Text(
    zh=(
        "你协助药师审查医嘱。规则已列出问题,不得增减或改判。根据病历数据给出 context:最多 3 句,"
        "写病历中与这些问题有关的事实(过敏反应、肾功能、合用药、诊断);不给替代用药或剂量建议。"
    ),
    en=(
        "You help a pharmacist who reviews an order. The rules have listed the issues: neither add to nor overrule "
        "them. From the record give context: at most 3 sentences with facts that bear on the issues (allergic "
        "reactions, renal function, other medicines, diagnoses); advise no other medicine and no dose."
    ),
)


class Sentence(Statement):
    """One fact that bears on an issue."""

    text: Annotated[str, Field(max_length=140)]


class OrderAnswer(BaseModel):
    """What the model may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    context: Annotated[list[Sentence], Field(max_length=3)]


class OrderSafety(Scenario[OrderAnswer]):
    """A DetectedIssue for each finding, and one card for the prescriber as Communication."""

    id = "in_visit.order_safety"
    version = "1.0.0"
    title = Text(zh="用药安全审查", en="Order safety")
    stage = Stage.IN_VISIT
    risk = Risk.C
    triggers = (Trigger("MedicationRequest", where={"status": ("draft", "active")}, why="a medicine is being ordered"),)
    record = (
        MEDICATION_QUERY,
        ALLERGY_QUERY,
        PROBLEM_QUERY,
        RecordQuery(
            "renal",
            "Observation",
            {"patient": "{patient}", "code": ",".join(EGFR)},
            timedelta(days=365),
            "date",
            cap=5,
            sort="-date",
        ),
    )
    output_model = OrderAnswer
    max_tokens = 500
    deadline = timedelta(minutes=1)
    prompt_version = "order-safety-1"

    def prompt(self, case: Case) -> Prompt:
        """The order, what the rules found, and what bears on it."""
        ordered = Fact(source_of(case.trigger), f"{_ORDER.in_(case.locale)}: {medication(case.trigger) or '-'}")
        renal = lines(real(case.get("renal")), observation, 2, case.locale)
        record = [
            *facts(_RENAL, renal, case.locale),
            *background(case, allergies=6, problems=6, medications=8),
        ]
        found_by_rule = rule_facts(self.rules(case), case.locale)
        return Prompt(_INSTRUCTION.in_(case.locale), [ordered, *found_by_rule, person(case), *record])

    def rules(self, case: Case) -> Sequence[Finding]:
        """Allergy, duplicate, interaction, renal function, age, pregnancy (`plugins/order_safety_rules.toml`)."""
        return [each.finding for each in order_safety_rules.issues(case)]

    def rule_drafts(self, case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The contraindications: a DetectedIssue each."""
        return drafts_of(case, at_once(order_safety_rules.issues(case)))

    def asks(self, case: Case, findings: Sequence[Finding]) -> bool:
        """Only about what the rules found: where they found nothing, nothing would be written."""
        return bool(findings)

    def drafts(self, case: Case, answer: OrderAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The cautions, a DetectedIssue each, and the card; nothing where the rules found nothing."""
        patient = subject(case)
        if patient is None or not findings:
            return ()
        return [*drafts_of(case, later(order_safety_rules.issues(case))), _card(case, patient, answer, findings)]


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [OrderSafety()]


def _card(case: Case, patient: str, answer: OrderAnswer, findings: Sequence[Finding]) -> Draft:
    """What a CDS Hooks card says, as a Communication that waits for a person."""
    locale = case.locale
    issues, context = found(findings, locale), stated(answer.context)
    limits = [Line(_LIMITS.in_(locale)), *truncated_note(case, ["medications", "allergies"], locale)]
    sections = [(_FOUND.in_(locale), [*issues, *limits]), *([(_CONTEXT.in_(locale), context)] if context else [])]
    text = "\n".join([f"{_TITLE.in_(locale)}:", *(f"- {plain(line)}" for line in (*issues, *context, *limits))])
    sources = cited([*trigger_source(case), *all_sources(issues, context)])
    urgent = any(finding.severity is Severity.RED_FLAG for finding in findings)
    resource = {
        **communication(
            case,
            patient,
            title=_TITLE,
            kind=("alert", "Alert"),
            sections=sections,
            text=text,
            sources=sources,
            head=AI_DRAFT,
        ),
        "priority": "stat" if urgent else "routine",
    }
    return Draft("card", resource, sources)
