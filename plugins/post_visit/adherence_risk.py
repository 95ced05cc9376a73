"""post_visit.adherence_risk (停药/复发风险干预): who may not be taking a medicine, and what a nurse is asked to do.

Days covered, overdue supply and dangerous stops are rules with published sources (`plugins/adherence_rules.py`); a
stop that a label warns of is written before the model is asked. The model only words what in the record bears on it.
Where the rules find nothing, nothing is written. Dispenses of other pharmacies are not seen, and the draft says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from plugins import adherence_rules
from plugins.drafting import (
    AI_DRAFT,
    all_sources,
    background,
    found,
    notes,
    person,
    rule_facts,
    stated,
    trigger_source,
    truncated_note,
)
from plugins.fhir_text import (
    DEVICE,
    Line,
    cited,
    clean,
    coded,
    day,
    deceased,
    instant,
    narrative,
    references,
    source_of,
    subject,
)
from plugins.hookspecs import hookimpl
from plugins.record_lines import facts, lines, medication, real, replies
from plugins.record_queries import ALLERGIES as ALLERGY_QUERY
from plugins.record_queries import MEDICATIONS as MEDICATION_QUERY
from plugins.record_queries import PROBLEMS as PROBLEM_QUERY
from plugins.red_flag_drafts import Review, raise_flags
from plugins.scenario import (
    Case,
    Draft,
    Fact,
    Finding,
    Prompt,
    RecordQuery,
    Resource,
    Risk,
    Scenario,
    Severity,
    Stage,
    Statement,
    Text,
    Trigger,
)
from plugins.tasks import task

_TITLE = Text("停药/复发风险", "Adherence risk")
_FOUND = Text("规则发现", "Found by rule")
_CONTEXT = Text("相关病历", "From the record")
_DISPENSED = Text("发药", "Dispensed")
_REPLY = Text("患者回复", "The patient replied")
_LIMIT = Text(
    zh="仅依据本院可见的发药记录;外购药和住院用药未计入。",
    en="From the dispenses that this record holds; medicines bought elsewhere or given on a ward are not counted.",
)
_OUTCOME = Text("可能未按医嘱用药", "May not be taking medicines as prescribed")
_CALL = Text("请护士联系患者: 用药情况", "Please contact the patient: taking of medicines")
_REVIEW = Review(
    title=Text("紧急人工复核: 骤停有危险的药物", "Urgent review by a person: medicine whose abrupt stop is dangerous"),
    urgency=Text("今日联系患者,核实是否仍在用药", "contact the patient today, find out whether the medicine is taken"),
    priority="urgent",
    within=timedelta(days=1),
)
_INSTRUCTION = Text(
    zh=(
        "你协助随访护士。规则已列出用药依从性问题,不得增减或重算。根据病历数据给出 context:最多 3 句,"
        "写病历中与这些问题有关的事实(患者回复、诊断、用药、发药);不猜测原因,不给用药或剂量建议。"
    ),
    en=(
        "You help a follow-up nurse. The rules have listed what speaks for medicines not being taken: neither add to "
        "nor recompute it. From the record give context: at most 3 sentences with facts that bear on it (replies of "
        "the patient, diagnoses, medicines, dispenses); guess no cause, advise no medicine and no dose."
    ),
)


class Sentence(Statement):
    """One fact that bears on the risk."""

    text: Annotated[str, Field(max_length=140)]


class AdherenceAnswer(BaseModel):
    """What the model may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    context: Annotated[list[Sentence], Field(max_length=3)]


class AdherenceRisk(Scenario[AdherenceAnswer]):
    """A RiskAssessment and a Task for the nurse; Flags and an urgent Task where a label warns of the stop."""

    id = "post_visit.adherence_risk"
    version = "1.0.0"
    title = Text(zh="停药/复发风险干预", en="Adherence risk")
    stage = Stage.POST_VISIT
    risk = Risk.C
    triggers = (
        Trigger(
            "MedicationDispense",
            where={"status": ("completed",)},
            fhirpath="daysSupply.exists()",
            why="a supply is recorded, or sent again because it is over",
        ),
        Trigger(
            "QuestionnaireResponse",
            where={"status": ("completed", "amended")},
            fhirpath="basedOn.where(reference.contains('CarePlan/')).exists()",
            why="a patient has replied to a follow-up plan",
        ),
        Trigger(
            "Task",
            where={
                "status": ("failed", "requested", "received", "accepted", "ready", "in-progress", "on-hold"),
                "code.coding.system": ("urn:careloom:follow-up",),
            },
            why="a follow-up is due, or has failed",
        ),
    )
    record = (
        RecordQuery(
            "dispenses",
            "MedicationDispense",
            {"patient": "{patient}", "status": "completed"},
            timedelta(days=365),
            "whenhandedover",
            cap=60,
            sort="-whenhandedover",
        ),
        MEDICATION_QUERY,
        PROBLEM_QUERY,
        ALLERGY_QUERY,
    )
    output_model = AdherenceAnswer
    max_tokens = 500
    deadline = timedelta(minutes=30)
    prompt_version = "adherence-risk-1"

    def prompt(self, case: Case) -> Prompt:
        """What the rules found, what the patient said, what was dispensed and for what."""
        said = replies(case.trigger) if case.trigger.get("resourceType") == "QuestionnaireResponse" else []
        replied = [Line(reply.line(case.locale), (source_of(case.trigger),)) for reply in said[:8]]
        dispensed = lines(real(case.get("dispenses")), _dispense, 6, case.locale)
        record = [
            *facts(_REPLY, replied, case.locale),
            *facts(_DISPENSED, dispensed, case.locale),
            *background(case, allergies=1, problems=6, medications=8),
        ]
        by_rule = rule_facts(self.rules(case), case.locale)
        return Prompt(_INSTRUCTION.in_(case.locale), [*by_rule, _occasion(case), person(case), *record])

    def rules(self, case: Case) -> Sequence[Finding]:
        """Overdue supply, days covered, what the patient says, a missed follow-up; nothing after a death."""
        return () if deceased(case.patient) else adherence_rules.findings(case)

    def rule_drafts(self, case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
        """A Flag for each dangerous stop, and one urgent Task."""
        return raise_flags(case, findings, _REVIEW)

    def drafts(self, case: Case, answer: AdherenceAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The assessment and a nurse's Task; nothing where the rules found nothing."""
        patient = subject(case)
        own = self.rules(case)
        if patient is None or not own:
            return ()
        by_rule, context = found(own, case.locale), stated(answer.context)
        limits = [Line(_LIMIT.in_(case.locale)), *truncated_note(case, ["dispenses", "medications"], case.locale)]
        assessment = _assessment(case, patient, [*by_rule, *limits], context)
        urgent = any(finding.severity is Severity.RED_FLAG for finding in own)
        return [assessment] if urgent else [assessment, _call(case, patient, by_rule)]


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [AdherenceRisk()]


def _occasion(case: Case) -> Fact:
    kinds = {
        "MedicationDispense": Text(f"发药: {_dispense(case.trigger)}", f"dispensed: {_dispense(case.trigger)}"),
        "QuestionnaireResponse": Text("患者回复了随访", "the patient replied to a follow-up"),
        "Task": Text(
            f"随访任务: {clean(case.trigger.get('description') or '-')}",
            f"follow-up: {clean(case.trigger.get('description') or '-')}",
        ),
    }
    return Fact(source_of(case.trigger), kinds[str(case.trigger["resourceType"])].in_(case.locale))


def _dispense(resource: Resource) -> str:
    """For example "Metformin 500 mg, 30 d (2026-10-01)"."""
    supply = resource.get("daysSupply") or {}
    amount = f", {supply.get('value')} {supply.get('unit') or supply.get('code') or ''}" if supply.get("value") else ""
    named = medication(resource)
    return clean(f"{named}{amount} ({day(resource.get('whenHandedOver')) or '-'})") if named else ""


def _assessment(case: Case, patient: str, by_rule: Sequence[Line], context: Sequence[Line]) -> Draft:
    locale, title = case.locale, _TITLE.in_(case.locale)
    shown = [*by_rule, *context]
    sections = [(_FOUND.in_(locale), by_rule), *([(_CONTEXT.in_(locale), context)] if context else [])]
    sources = cited([*trigger_source(case), *all_sources(shown)])
    outcome = coded(_OUTCOME.in_(locale), ("urn:careloom:risk", "non-adherence", None))
    resource = {
        "resourceType": "RiskAssessment",
        "text": narrative(sections, locale, head=AI_DRAFT.in_(locale)),
        "status": "preliminary",
        "code": coded(title),
        "subject": {"reference": patient},
        "occurrenceDateTime": instant(case.now),
        "performer": {"reference": DEVICE},
        **({"basis": references(sources)} if sources else {}),
        "prediction": [{"outcome": outcome, "rationale": clean("; ".join(line.text for line in shown), 2000)}],
        **notes(shown),
    }
    return Draft("assessment", resource, sources)


def _call(case: Case, patient: str, by_rule: Sequence[Line]) -> Draft:
    resource = task(
        case,
        patient,
        title=_CALL,
        code="contact-patient",
        shown=by_rule,
        said="; ".join(line.text for line in by_rule),
        priority="routine",
        within=timedelta(days=3),
    )
    return Draft("call", resource, cited([*trigger_source(case), *all_sources(by_rule)]))
