"""pre_visit.triage (智能分诊): how urgent a patient's complaint is and which department should see it.

Red flags are rules: they are written before the model is asked, and the model can raise the level but never lower it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from plugins import red_flag_drafts, red_flags
from plugins.drafting import (
    AI_DRAFT,
    all_sources,
    background,
    found,
    notes,
    person,
    stated,
    trigger_source,
)
from plugins.fhir_text import (
    DEVICE,
    NOT_RECORDED,
    Line,
    age_in_months,
    cited,
    clean,
    coded,
    display,
    instant,
    listed,
    narrative,
    references,
    source_of,
    subject,
)
from plugins.hookspecs import hookimpl
from plugins.record_lines import Reply, replies
from plugins.record_queries import ALLERGIES as ALLERGY_QUERY
from plugins.record_queries import MEDICATIONS as MEDICATION_QUERY
from plugins.record_queries import PROBLEMS as PROBLEM_QUERY
from plugins.red_flag_drafts import LEVELS, PRIORITY
from plugins.scenario import (
    Case,
    Draft,
    Fact,
    Finding,
    Prompt,
    Risk,
    Scenario,
    Stage,
    Statement,
    Text,
    Trigger,
)

Department = Literal[
    "emergency", "general_practice", "internal_medicine", "cardiology", "respiratory", "gastroenterology",
    "neurology", "endocrinology", "surgery", "orthopedics", "obstetrics_gynecology", "pediatrics",
    "dermatology", "ent", "psychiatry",
]  # fmt: skip

_DEPARTMENTS: dict[str, Text] = {
    "emergency": Text("急诊科", "Emergency department"),
    "general_practice": Text("全科医学科", "General practice"),
    "internal_medicine": Text("普通内科", "General internal medicine"),
    "cardiology": Text("心血管内科", "Cardiology"),
    "respiratory": Text("呼吸内科", "Respiratory medicine"),
    "gastroenterology": Text("消化内科", "Gastroenterology"),
    "neurology": Text("神经内科", "Neurology"),
    "endocrinology": Text("内分泌科", "Endocrinology"),
    "surgery": Text("普通外科", "General surgery"),
    "orthopedics": Text("骨科", "Orthopaedics"),
    "obstetrics_gynecology": Text("妇产科", "Obstetrics and gynaecology"),
    "pediatrics": Text("儿科", "Paediatrics"),
    "dermatology": Text("皮肤科", "Dermatology"),
    "ent": Text("耳鼻喉科", "Ear, nose and throat"),
    "psychiatry": Text("精神心理科", "Psychiatry"),
    "triage_desk": Text("分诊台(人工分诊)", "Triage desk (by a person)"),
}
#: House rule: in China paediatrics usually sees children until their 14th birthday; a hospital may set it higher.
_CHILD_MONTHS = 14 * 12
_FOR_ANY_AGE = frozenset({"emergency", "pediatrics", "obstetrics_gynecology", "psychiatry"})

_INSTRUCTION = Text(
    zh=(
        "你是医院预检分诊护士的助手。根据病历数据给出:reasons 最多 3 条理由,每条一句,只复述病历中的事实;"
        "acuity 分诊级别(1 立即,2 十分钟内,3 三十分钟内,4 可等候);department 就诊科室。拿不准时选更急的级别。"
    ),
    en=(
        "You assist a hospital triage nurse. From the record give: reasons, at most 3, one sentence each, repeating "
        "only facts of the record; acuity (1 at once, 2 within ten minutes, 3 within thirty, 4 can wait); department. "
        "When in doubt choose the more urgent level."
    ),
)


class Reason(Statement):
    """One reason for the level."""

    text: Annotated[str, Field(max_length=120)]


class TriageAnswer(BaseModel):
    """What the model may say: reasons first, since a level that follows from them is better founded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reasons: Annotated[list[Reason], Field(max_length=3)]
    acuity: red_flags.Level
    department: Department


class Triage(Scenario[TriageAnswer]):
    """Acuity and department for a patient who has not been seen yet."""

    id: ClassVar[str] = "pre_visit.triage"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[Text] = Text(zh="智能分诊", en="Triage")
    stage: ClassVar[Stage] = Stage.PRE_VISIT
    risk: ClassVar[Risk] = Risk.C
    triggers = (
        Trigger(
            "QuestionnaireResponse",
            where={"status": ("completed", "amended")},
            fhirpath="basedOn.where(reference.contains('CarePlan/')).empty()",
            why="a patient has answered an intake questionnaire (a reply to a follow-up plan is not one)",
        ),
        Trigger(
            "Appointment",
            where={"status": ("proposed", "pending", "booked")},
            fhirpath="reasonCode.exists() or reasonReference.exists() or description.exists() or comment.exists()",
            why="an appointment is asked for with a reason",
        ),
    )
    record = (PROBLEM_QUERY, MEDICATION_QUERY, ALLERGY_QUERY)
    output_model: ClassVar[type[BaseModel]] = TriageAnswer
    max_tokens: ClassVar[int] = 600
    deadline: ClassVar[timedelta] = timedelta(minutes=2)
    prompt_version: ClassVar[str] = "triage-1"

    def prompt(self, case: Case) -> Prompt:
        """The complaint in the patient's words, then the few facts that change its urgency."""
        complaint = [Fact(source_of(case.trigger), line) for line in _complaint(case)]
        known = background(case, allergies=4, problems=6, medications=6)
        return Prompt(_INSTRUCTION.in_(case.locale), [*complaint[:12], person(case), *known, *complaint[12:]])

    def rules(self, case: Case) -> Sequence[Finding]:
        """Red flags in what the patient says (`plugins/red_flags.toml`)."""
        return red_flags.find(_claims(case), trigger_source(case), age_in_months(case.patient, case.now))

    def rule_drafts(self, case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
        """A Flag for each red flag, and one Task that asks a person to look now."""
        return red_flag_drafts.raise_flags(case, findings)

    def drafts(self, case: Case, answer: TriageAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The level as a RiskAssessment and the department as a proposed ServiceRequest."""
        patient = subject(case)
        if patient is None:
            return ()
        reasons, flags = stated(answer.reasons), found(findings, case.locale)
        level = _level(answer, findings)
        department = _department(case, answer, level)
        shown = [*flags, *reasons, *_raised(case, answer, level)]
        sources = cited([*trigger_source(case), *all_sources(shown)])
        return [
            _risk_assessment(case, patient, level, shown, sources),
            _referral(case, patient, level, department, shown, sources),
        ]


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [Triage()]


def _reasons_for_visit(case: Case) -> list[str]:
    """What an Appointment says of why it is asked for."""
    texts = [display(reason) for name in ("reasonCode", "reasonReference") for reason in listed(case.trigger, name)]
    texts += [clean(case.trigger.get(name) or "") for name in ("description", "comment")]
    return list(dict.fromkeys(filter(None, texts)))


def _answers(case: Case) -> list[Reply]:
    return replies(case.trigger) if case.trigger.get("resourceType") == "QuestionnaireResponse" else []


def _complaint(case: Case) -> list[str]:
    label = Text("就诊原因", "reason for visit").in_(case.locale)
    return [f"{label}: {text}" for text in _reasons_for_visit(case)] + [a.line(case.locale) for a in _answers(case)]


def _claims(case: Case) -> list[str]:
    return [*_reasons_for_visit(case), *filter(None, (answer.asserts for answer in _answers(case)))]


def _level(answer: TriageAnswer, findings: Sequence[Finding]) -> str:
    """The more urgent of rule and model; a model's level without any supported reason does not count."""
    proposed = [answer.acuity] if answer.reasons else []
    demanded = red_flags.level(findings)
    return min([*proposed, *([demanded] if demanded else [])], default="none")


def _department(case: Case, answer: TriageAnswer, level: str) -> str:
    """The model's department, unless level, age or sex rule it out."""
    if level in ("1", "2"):
        return "emergency"
    if level == "none":
        return "triage_desk"
    months = age_in_months(case.patient, case.now)
    if months is not None and months < _CHILD_MONTHS and answer.department not in _FOR_ANY_AGE:
        return "pediatrics"
    if (case.patient or {}).get("gender") == "male" and answer.department == "obstetrics_gynecology":
        return "triage_desk"
    return answer.department


def _raised(case: Case, answer: TriageAnswer, level: str) -> list[Line]:
    if not answer.reasons or level == answer.acuity:
        return []
    proposed = LEVELS[answer.acuity]
    text = Text(f"模型建议{proposed.zh},已按红旗规则提高", f"The model proposed {proposed.en}; raised by red-flag rule")
    return [Line(text.in_(case.locale))]


def _shell(case: Case, patient: str, title: str, shown: Iterable[Line]) -> dict[str, Any]:
    """What all drafts of this scenario share: subject and narrative."""
    text = narrative([(title, shown)], case.locale, head=AI_DRAFT.in_(case.locale))
    return {"text": text, "subject": {"reference": patient}}


def _risk_assessment(case: Case, patient: str, level: str, shown: Sequence[Line], sources: tuple[str, ...]) -> Draft:
    title = Text("预检分诊", "Triage").in_(case.locale)
    outcome = LEVELS[level].in_(case.locale)
    rationale = "; ".join(line.text for line in shown) or NOT_RECORDED.in_(case.locale)
    resource = {
        "resourceType": "RiskAssessment",
        **_shell(case, patient, f"{title}: {outcome}", shown),
        "status": "preliminary",
        "code": coded(title),
        "occurrenceDateTime": instant(case.now),
        "performer": {"reference": DEVICE},
        "prediction": [
            {"outcome": coded(outcome, ("urn:careloom:triage-level", level, None)), "rationale": clean(rationale, 2000)}
        ],
        **({"basis": references(sources)} if sources else {}),
        **notes(shown),
    }
    return Draft("acuity", resource, sources)


def _referral(
    case: Case, patient: str, level: str, department: str, shown: Sequence[Line], sources: tuple[str, ...]
) -> Draft:
    name = _DEPARTMENTS[department].in_(case.locale)
    title = Text(f"建议就诊科室: {name}", f"Proposed department: {name}").in_(case.locale)
    resource = {
        "resourceType": "ServiceRequest",
        **_shell(case, patient, title, shown),
        "status": "draft",
        "intent": "proposal",
        "priority": PRIORITY[level],
        "code": coded(title),
        "performerType": coded(name, ("urn:careloom:department", department, None)),
        "authoredOn": instant(case.now),
        "requester": {"reference": DEVICE},
        **({"supportingInfo": references(sources)} if sources else {}),
        **notes(shown),
    }
    return Draft("department", resource, sources)
