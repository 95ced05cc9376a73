"""in_visit.exam_recommendation (检查项目推荐): examinations proposed from a closed set, none that is there already.

Rules with published sources say what a condition calls for (`plugins/examinations.toml`); the model may add from the
same set, with a reason that cites the record. What has a recent result or an open order is not proposed, whoever asks.
Every proposal is a ServiceRequest with intent proposal: a person orders or does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from plugins import examinations
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
from plugins.examinations import EXAMS, RESULT_CODES, Exam
from plugins.fhir_text import (
    DEVICE,
    NOT_RECORDED,
    Line,
    cited,
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
from plugins.notes import LOINC, encounter_of
from plugins.record_lines import condition, facts, lines, observation, real, report
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
    Stage,
    Statement,
    Text,
    Trigger,
)

ExamId = Literal[
    "ecg_12_lead", "troponin_hs", "nt_probnp", "echocardiography", "chest_x_ray", "ct_head_plain", "glucose", "lactate",
    "blood_culture", "hba1c", "urine_albumin_creatinine", "creatinine_egfr", "lipid_panel", "tsh", "ferritin",
]  # fmt: skip

_CATEGORIES = {
    "laboratory": ("http://snomed.info/sct", "108252007", "Laboratory procedure"),
    "imaging": ("http://snomed.info/sct", "363679005", "Imaging"),
    "procedure": ("http://snomed.info/sct", "103693007", "Diagnostic procedure"),
}
_RESULTS = Text("近期结果", "Recent result")
_ORDERED = Text("已开检查", "Ordered already")
_VISIT = Text("本次就诊", "This visit")
_BY_MODEL = Text("由模型提出,无规则依据", "Proposed by the model; no rule calls for it")
_INSTRUCTION = Text(
    zh=(
        "你协助门诊与病房医生选择检查。根据病历数据给出 proposals:最多 4 项检查,exam 只能取给定代码,"
        "text 用一句话说明病历中的哪项事实提示需要,只复述事实;已有近期结果或已开的不提;不需要就给空列表。"
    ),
    en=(
        "You help a doctor to choose examinations. From the record give proposals: at most 4, exam from the given "
        "codes only, text one sentence on which fact of the record calls for it, repeating facts only; none that has "
        "a recent result or is ordered already; an empty list if none is needed."
    ),
)


class Proposal(Statement):
    """One examination and why."""

    exam: ExamId
    text: Annotated[str, Field(max_length=120)]


class ExamAnswer(BaseModel):
    """What the model may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    proposals: Annotated[list[Proposal], Field(max_length=4)]


class ExamRecommendation(Scenario[ExamAnswer]):
    """A proposed ServiceRequest for each examination that is called for."""

    id = "in_visit.exam_recommendation"
    version = "1.0.0"
    title = Text(zh="检查项目推荐", en="Examination proposals")
    stage = Stage.IN_VISIT
    risk = Risk.C
    triggers = (
        Trigger("Encounter", where={"status": ("in-progress",)}, why="a visit or a stay has begun"),
        Trigger(
            "Condition",
            where={"verificationStatus.coding.code": ("provisional", "differential", "unconfirmed")},
            why="a diagnosis is suspected",
        ),
    )
    record = (
        PROBLEM_QUERY,
        MEDICATION_QUERY,
        ALLERGY_QUERY,
        RecordQuery(
            "results",
            "Observation",
            {"patient": "{patient}", "code": ",".join(RESULT_CODES)},
            timedelta(days=366),
            "date",
            cap=40,
            sort="-date",
        ),
        RecordQuery(
            "reports",
            "DiagnosticReport",
            {"patient": "{patient}", "code": ",".join(RESULT_CODES)},
            timedelta(days=366),
            "date",
            cap=20,
            sort="-date",
        ),
        RecordQuery(
            "orders",
            "ServiceRequest",
            {"patient": "{patient}", "status": "draft,active,on-hold"},
            cap=30,
            sort="-authored",
        ),
    )
    output_model = ExamAnswer
    max_tokens = 600
    deadline = timedelta(minutes=2)
    prompt_version = "exam-recommendation-1"

    def prompt(self, case: Case) -> Prompt:
        """Why the patient is here, what the rules call for, what was measured and ordered."""
        visit = Fact(source_of(case.trigger), f"{_VISIT.in_(case.locale)}: {_visit(case)}")
        results = lines(real(case.get("results")), observation, 8, case.locale)
        reports = lines(real(case.get("reports")), report, 3, case.locale)
        ordered = lines(real(case.get("orders")), lambda r: display(r.get("code")), 6, case.locale)
        record = [
            *background(case, allergies=2, problems=8, medications=5),
            *facts(_RESULTS, [*results, *reports], case.locale),
            *facts(_ORDERED, ordered, case.locale),
        ]
        called = rule_facts(self.rules(case), case.locale)
        return Prompt(_INSTRUCTION.in_(case.locale), [visit, person(case), *called, *record])

    def rules(self, case: Case) -> Sequence[Finding]:
        """What the conditions and reasons call for and is not there yet (`plugins/examinations.toml`)."""
        return examinations.findings(case)

    def drafts(self, case: Case, answer: ExamAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """A ServiceRequest each: what rules call for first, then what only the model proposes."""
        patient = subject(case)
        if patient is None:
            return ()
        by_rule = {called.exam.id: called.findings for called in examinations.called_for(case)}
        by_model: dict[str, list[Line]] = {}
        for proposal in answer.proposals:
            by_model.setdefault(proposal.exam, []).extend(stated([proposal]))
        wanted = [*by_rule, *(e for e in EXAMS if e in by_model and e not in by_rule)]
        allowed = [EXAMS[e] for e in wanted if e in by_rule or examinations.open_for(case, EXAMS[e])]
        return [_request(case, patient, e, by_rule.get(e.id, ()), by_model.get(e.id, ())) for e in allowed]


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [ExamRecommendation()]


def _visit(case: Case) -> str:
    if case.trigger.get("resourceType") == "Condition":
        return condition(case.trigger, case.locale) or NOT_RECORDED.in_(case.locale)
    named = [display(r) for name in ("reasonCode", "reasonReference", "type") for r in listed(case.trigger, name)]
    return ", ".join(dict.fromkeys(filter(None, named))) or NOT_RECORDED.in_(case.locale)


def _request(case: Case, patient: str, exam: Exam, findings: Sequence[Finding], reasons: Sequence[Line]) -> Draft:
    locale, name = case.locale, exam.name.in_(case.locale)
    why = [*found(findings, locale), *([] if findings else [Line(_BY_MODEL.in_(locale))]), *reasons]
    shown = [*why, *truncated_note(case, ["results", "reports", "orders"], locale)]
    sources = cited([*trigger_source(case), *all_sources(shown)])
    about = references(s for s in sources if s.startswith("Condition/"))
    title = Text(f"建议检查: {name}", f"Proposed examination: {name}").in_(locale)
    resource = {
        "resourceType": "ServiceRequest",
        "text": narrative([(title, shown)], locale, head=AI_DRAFT.in_(locale)),
        "status": "draft",
        "intent": "proposal",
        "priority": "routine",
        "category": [coded(exam.category, _CATEGORIES[exam.category])],
        "code": coded(name, (LOINC, *exam.loinc)),
        "subject": {"reference": patient},
        **encounter_of(case),
        "authoredOn": instant(case.now),
        "requester": {"reference": DEVICE},
        **({"reasonReference": about} if about else {}),
        **({"supportingInfo": references(sources)} if sources else {}),
        **notes(shown),
    }
    return Draft(f"exam-{exam.id.replace('_', '-')}", resource, sources)
