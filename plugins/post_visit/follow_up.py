"""post_visit.follow_up (智能随访): plan, schedule and first message after an encounter has ended.

When to follow up is decided by rules with published sources (`plugins/follow_up_rules.toml`); the model only words
questions to ask the patient, each tied to the record. Nothing is sent: the message is a `preparation`.
A patient's reply (QuestionnaireResponse based on the plan, Communication in response) does not trigger this version.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from plugins import follow_up_rules
from plugins.drafting import (
    AI_DRAFT,
    ALLERGIES,
    MEDICATIONS,
    PROBLEMS,
    all_sources,
    allergy_lines,
    medication_lines,
    problem_lines,
    stated,
    trigger_source,
)
from plugins.fhir_text import (
    DEVICE,
    NOT_RECORDED,
    Line,
    cited,
    clean,
    coded,
    day,
    deceased,
    display,
    draft,
    instant,
    listed,
    moment,
    narrative,
    references,
    source_of,
    subject,
    who,
)
from plugins.follow_up_rules import Step
from plugins.hookspecs import hookimpl
from plugins.messages import URGENT, listing, to_patient
from plugins.notes import encounter_of
from plugins.record_lines import facts, real
from plugins.record_parts import diagnoses, operations
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

#: An encounter that ended longer ago than this is planned from today: nothing can be due in the past.
_RECENT = timedelta(days=14)

_TITLE = Text(zh="随访计划(AI 草稿)", en="Follow-up plan (AI draft)")
_DIAGNOSIS = Text("本次诊断", "Diagnosis of this visit")
_DONE = Text("本次处置", "Done in this visit")
_FOCUS: dict[str, Text] = {
    "recovery": Text("恢复情况", "recovery"),
    "medication": Text("用药", "medicines"),
    "symptoms": Text("症状", "symptoms"),
    "chronic_control": Text("慢病控制", "control of a chronic disease"),
    "unstated": Text("未说明", "not stated"),
}
_KINDS = {"contact": Text("电话/消息随访", "Contact"), "visit": Text("复诊", "Visit")}
_HELLO = Text(
    zh="您好,您近期在我院就诊,我们将按以下安排随访:",
    en="Hello. After your recent visit to our hospital we plan to stay in touch as follows:",
)
_ASK = Text(zh="请您届时告诉我们:", en="Please tell us then:")

_INSTRUCTION = Text(
    zh=(
        "你协助随访护士。根据病历数据给出 questions:最多 3 个随访时要问患者的问题,每个一句,通俗易懂,"
        "只涉及病历中的诊断、处置或用药,不给建议和诊断;focus:随访重点。"
    ),
    en=(
        "You help a follow-up nurse. From the record give questions: at most 3 to ask the patient, one plain sentence "
        "each, about the diagnoses, treatments or medicines of the record only, without advice or diagnosis; and "
        "focus: what the follow-up is mainly about."
    ),
)


class Question(Statement):
    """One question to the patient."""

    text: Annotated[str, Field(max_length=120)]


class FollowUpAnswer(BaseModel):
    """What the model may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    questions: Annotated[list[Question], Field(max_length=3)]
    focus: Literal["recovery", "medication", "symptoms", "chronic_control"]


class FollowUp(Scenario[FollowUpAnswer]):
    """A draft CarePlan, its Tasks, and a prepared message.

    Every inpatient, emergency and observation stay is followed up; an outpatient visit only where it had a reason or a
    diagnosis, since a vaccination or a routine check needs none. Nobody is written to after a death.
    """

    id: ClassVar[str] = "post_visit.follow_up"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[Text] = Text(zh="智能随访", en="Follow-up")
    stage: ClassVar[Stage] = Stage.POST_VISIT
    risk: ClassVar[Risk] = Risk.B
    triggers = (
        Trigger(
            "Encounter",
            where={"status": ("finished",), "class.code": ("IMP", "ACUTE", "NONAC", "EMER", "OBSENC", "SS")},
            fhirpath="hospitalization.dischargeDisposition.coding.where(code = 'exp').empty()",
            why="a stay has ended, and not by death",
        ),
        Trigger(
            "Encounter",
            where={"status": ("finished",), "class.code": ("AMB", "VR", "HH")},
            fhirpath="reasonCode.exists() or reasonReference.exists() or diagnosis.exists()",
            why="an outpatient visit for a reason has ended",
        ),
    )
    record = (
        RecordQuery("diagnoses", "Condition", {"encounter": "{encounter}"}, cap=10),
        RecordQuery("procedures", "Procedure", {"encounter": "{encounter}", "status": "completed"}, cap=10),
        PROBLEM_QUERY,
        MEDICATION_QUERY,
        ALLERGY_QUERY,
    )
    output_model: ClassVar[type[BaseModel]] = FollowUpAnswer
    max_tokens: ClassVar[int] = 600
    deadline: ClassVar[timedelta] = timedelta(minutes=15)
    prompt_version: ClassVar[str] = "follow-up-1"

    def prompt(self, case: Case) -> Prompt:
        """The encounter, what was found and done, and what the patient lives with."""
        stay = Fact(source_of(case.trigger), _stay(case))
        person = Fact(source_of(case.patient or case.trigger), who(case.patient, case.now, case.locale))
        record = [
            *facts(_DIAGNOSIS, diagnoses(case, 5), case.locale),
            *facts(MEDICATIONS, medication_lines(case, 6), case.locale),
            *facts(_DONE, operations(case, 4), case.locale),
            *facts(PROBLEMS, problem_lines(case, 5), case.locale),
            *facts(ALLERGIES, allergy_lines(case, 3), case.locale),
        ]
        return Prompt(_INSTRUCTION.in_(case.locale), [stay, person, *record])

    def rules(self, case: Case) -> Sequence[Finding]:
        """The follow-ups that are due, one finding each, with the source of the interval."""
        if deceased(case.patient):
            return ()
        conditions = [*real(case.get("diagnoses")), *real(case.get("problems"))]
        return [step.finding for step in follow_up_rules.steps(case.trigger, conditions)]

    def asks(self, case: Case, findings: Sequence[Finding]) -> bool:
        """Only where something is due: a plan without a step says nothing."""
        return bool(follow_up_rules.of(findings))

    def drafts(self, case: Case, answer: FollowUpAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """Plan, one Task for each step, and a message that waits for a person."""
        patient = subject(case)
        steps = follow_up_rules.of(findings)
        if patient is None or deceased(case.patient) or not steps:
            return ()
        questions = stated(answer.questions)
        focus = answer.focus if questions else "unstated"
        return [
            _plan(case, patient, steps, questions, focus),
            *(_task(case, patient, step) for step in steps),
            _message(case, patient, steps, questions),
        ]


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [FollowUp()]


def _plan(case: Case, patient: str, steps: Sequence[Step], questions: Sequence[Line], focus: str) -> Draft:
    locale = case.locale
    schedule = [_scheduled(case, step, with_source=True) for step in steps]
    titles = (Text("日程", "Schedule").in_(locale), Text("拟询问患者", "To ask the patient").in_(locale))
    sources = cited([*trigger_source(case), *all_sources(schedule, questions)])
    addresses = [s for s in all_sources(schedule) if s.startswith("Condition/")]
    resource = {
        "resourceType": "CarePlan",
        "text": narrative(zip(titles, (schedule, questions), strict=True), locale, head=AI_DRAFT.in_(locale)),
        "status": "draft",
        "intent": "proposal",
        "title": _TITLE.in_(locale),
        "description": Text(f"随访重点: {_FOCUS[focus].zh}", f"Focus: {_FOCUS[focus].en}").in_(locale),
        "subject": {"reference": patient},
        **encounter_of(case),
        "period": {"start": day(instant(case.now)), "end": day(instant(_due(case, steps[-1])))},
        "created": instant(case.now),
        "author": {"reference": DEVICE},
        **({"addresses": references(addresses)} if addresses else {}),
        "activity": [{"reference": {"reference": draft(_task_name(step))}} for step in steps],
    }
    return Draft("plan", resource, sources)


def _task(case: Case, patient: str, step: Step) -> Draft:
    due = _due(case, step)
    shown = _scheduled(case, step, with_source=True)
    reasons = references(s for s in step.sources if s.startswith("Condition/"))
    resource = {
        "resourceType": "Task",
        "text": narrative([(_KINDS[step.rule.kind].in_(case.locale), [shown])], case.locale),
        "status": "draft",
        "intent": "proposal",
        "priority": "routine",
        "code": coded(_KINDS[step.rule.kind].in_(case.locale), ("urn:careloom:follow-up", step.rule.code, None)),
        "description": step.rule.text.in_(case.locale),
        "for": {"reference": patient},
        **encounter_of(case),
        "authoredOn": instant(case.now),
        "requester": {"reference": DEVICE},
        **({"reasonReference": reasons[0]} if reasons else {}),
        "restriction": {"repetitions": 1, "period": {"end": instant(due)}},
    }
    return Draft(_task_name(step), resource, step.sources)


def _message(case: Case, patient: str, steps: Sequence[Step], questions: Sequence[Line]) -> Draft:
    locale = case.locale
    schedule = [_scheduled(case, step, with_source=False) for step in steps]
    asked = [_ASK.in_(locale), *listing(questions)] if questions else []
    text = "\n".join([_HELLO.in_(locale), *listing(schedule), *asked, URGENT.in_(locale)])
    sources = cited([*trigger_source(case), *all_sources(schedule, questions)])
    sections = [(_HELLO.in_(locale), schedule), *([(_ASK.in_(locale), questions)] if questions else [])]
    resource = {
        **to_patient(
            case,
            patient,
            title=Text("随访", "Follow-up"),
            kind=("reminder", "Reminder"),
            sections=sections,
            text=text,
            sources=sources,
            language=locale,
        ),
        "basedOn": [{"reference": draft("plan")}],
        **encounter_of(case),
    }
    return Draft("message", resource, sources)


def _scheduled(case: Case, step: Step, *, with_source: bool) -> Line:
    """One line of the schedule; what goes to the patient is without the rule's source."""
    due = day(instant(_due(case, step)))
    text = Text(f"{due} 前: {step.rule.text.zh}", f"by {due}: {step.rule.text.en}").in_(case.locale)
    label = Text("依据", "source").in_(case.locale)
    return Line(f"{text} ({label}: {step.rule.citation})" if with_source else text, step.sources)


def _task_name(step: Step) -> str:
    return f"task-{step.rule.code}"


def _due(case: Case, step: Step) -> datetime:
    ended = moment((case.trigger.get("period") or {}).get("end"))
    base = ended if ended and case.now - _RECENT <= ended <= case.now else case.now
    return max(base + timedelta(days=step.rule.days), case.now)


def _stay(case: Case) -> str:
    named = [display(r) for name in ("reasonCode", "reasonReference", "type") for r in listed(case.trigger, name)]
    reasons = ", ".join(dict.fromkeys(filter(None, named))) or NOT_RECORDED.in_(case.locale)
    ended = day((case.trigger.get("period") or {}).get("end")) or NOT_RECORDED.in_(case.locale)
    zh, en = f"就诊结束 {ended},原因: {clean(reasons)}", f"visit ended {ended}, for: {clean(reasons)}"
    return Text(zh, en).in_(case.locale)
