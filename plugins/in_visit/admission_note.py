"""in_visit.admission_note (入院记录生成): the admission note of an inpatient, drafted from the record.

Every section but the present illness is taken from the record by code; the model only words the present illness, and
each of its sentences names the resource it rests on. Where the record is silent, the section says so.
Sections and their order: 病历书写基本规范 (卫医政发〔2010〕11号), 第十八条; codes: LOINC document section codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from plugins.contradictions import contradictions
from plugins.drafting import (
    ALLERGIES,
    MEDICATIONS,
    PROBLEMS,
    all_sources,
    allergy_lines,
    found,
    medication_lines,
    problem_lines,
    stated,
    trigger_source,
    truncated_note,
)
from plugins.fhir_text import (
    NOT_RECORDED,
    Line,
    cited,
    day,
    display,
    source_of,
    subject,
    who,
)
from plugins.hookspecs import hookimpl
from plugins.notes import LOINC, Section, composition, document
from plugins.record_lines import facts, lines, observation, real, relative
from plugins.record_parts import diagnoses, newest, operations, past, reasons, tests, vital_signs
from plugins.record_queries import ALLERGIES as ALLERGY_QUERY
from plugins.record_queries import MEDICATIONS as MEDICATION_QUERY
from plugins.record_queries import PAST as PAST_QUERY
from plugins.record_queries import PROBLEMS as PROBLEM_QUERY
from plugins.record_queries import recent
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

_TITLE = Text(zh="入院记录(AI 草稿)", en="Admission note (AI draft)")
_TYPE = (LOINC, "47039-3", "Hospital Admission history and physical note")
_ANY = {"patient": "{patient}"}

_INSTRUCTION = Text(
    zh=(
        "你协助住院医师书写入院记录的现病史。根据病历数据给出 present_illness:最多 3 句,按时间顺序,"
        "写主要症状、起病与演变、有意义的检查结果;只复述病历中的事实,不推断诊断。"
    ),
    en=(
        "You help a ward doctor write the history of present illness of an admission note. From the record give "
        "present_illness: at most 3 sentences in order of time, with the main symptoms, onset and course, and telling "
        "results; repeat only facts of the record and infer no diagnosis."
    ),
)


class Sentence(Statement):
    """One sentence of the present illness."""

    text: Annotated[str, Field(max_length=140)]


class AdmissionAnswer(BaseModel):
    """What the model may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    present_illness: Annotated[list[Sentence], Field(max_length=3)]


class AdmissionNote(Scenario[AdmissionAnswer]):
    """A draft admission note as Composition and, with the same text, as DocumentReference."""

    id: ClassVar[str] = "in_visit.admission_note"
    version: ClassVar[str] = "1.0.0"
    title: ClassVar[Text] = Text(zh="入院记录生成", en="Admission note")
    stage: ClassVar[Stage] = Stage.IN_VISIT
    risk: ClassVar[Risk] = Risk.B
    triggers = (
        Trigger(
            "Encounter",
            where={"status": ("in-progress",), "class.code": ("IMP", "ACUTE", "NONAC")},
            why="an inpatient stay has begun",
        ),
    )
    record = (
        PROBLEM_QUERY,
        RecordQuery("diagnoses", "Condition", {"encounter": "{encounter}"}, cap=10),
        PAST_QUERY,
        RecordQuery("procedures", "Procedure", {**_ANY, "status": "completed"}, cap=15, sort="-date"),
        MEDICATION_QUERY,
        ALLERGY_QUERY,
        RecordQuery("family", "FamilyMemberHistory", _ANY, cap=10),
        RecordQuery("social", "Observation", {**_ANY, "category": "social-history"}, cap=6, sort="-date"),
        recent("vitals", "Observation", days=3, cap=16, category="vital-signs"),
        recent("labs", "Observation", days=14, cap=20, category="laboratory"),
        recent("reports", "DiagnosticReport", days=14, cap=8),
    )
    output_model: ClassVar[type[BaseModel]] = AdmissionAnswer
    max_tokens: ClassVar[int] = 600
    deadline: ClassVar[timedelta] = timedelta(minutes=5)
    prompt_version: ClassVar[str] = "admission-note-1"

    def prompt(self, case: Case) -> Prompt:
        """What bears on the present illness, the reason for admission first."""
        stay = Fact(source_of(case.trigger), _stay(case))
        person = Fact(source_of(case.patient or case.trigger), who(case.patient, case.now, case.locale))
        record = [
            *facts(_DIAGNOSIS, diagnoses(case, 4), case.locale),
            *facts(_VITALS, vital_signs(case, 8), case.locale),
            *facts(_TESTS, tests(case, 10), case.locale),
            *facts(PROBLEMS, problem_lines(case, 6), case.locale),
            *facts(ALLERGIES, allergy_lines(case, 4), case.locale),
            *facts(MEDICATIONS, medication_lines(case, 6), case.locale),
        ]
        return Prompt(_INSTRUCTION.in_(case.locale), [stay, person, *record])

    def rules(self, case: Case) -> Sequence[Finding]:
        """Where the record contradicts itself: put before the doctor, never smoothed over."""
        return contradictions(case)

    def drafts(self, case: Case, answer: AdmissionAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The note, twice: as Composition with coded sections, and as a document with the same text."""
        patient = subject(case)
        if patient is None:
            return ()
        sections = _sections(case, answer, findings)
        sources = cited([*trigger_source(case), *(s for part in sections for s in all_sources(part.lines))])
        return [
            Draft("note", composition(case, patient, _TITLE, _TYPE, sections), sources),
            Draft("document", document(case, patient, _TITLE, _TYPE, sections, same_as="note"), sources),
        ]


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [AdmissionNote()]


_DIAGNOSIS = Text("本次诊断", "Diagnosis of this stay")
_VITALS = Text("生命体征", "Vital signs")
_TESTS = Text("检查", "Tests")


def _sections(case: Case, answer: AdmissionAnswer, findings: Sequence[Finding]) -> list[Section]:
    """The note's parts in the order that 病历书写基本规范 prescribes; what must be checked comes last."""
    history = [*problem_lines(case, 12), *past(case, 12), *operations(case, 10)]
    parts = [
        Section(Text("一般情况", "General"), None, _general(case)),
        Section(Text("主诉", "Chief complaint"), "10154-3", _complaint(case)),
        Section(Text("现病史", "History of present illness"), "10164-2", stated(answer.present_illness)),
        Section(
            Text("既往史", "Past medical history"),
            "11348-0",
            [*history, *truncated_note(case, ["problems", "past", "procedures"], case.locale)],
        ),
        Section(Text("过敏史", "Allergies"), "48765-2", allergy_lines(case, 20)),
        Section(Text("用药史", "Medications"), "10160-0", medication_lines(case, 20)),
        Section(Text("个人史", "Social history"), "29762-2", _social(case)),
        Section(Text("婚育史、月经史", "Marital, obstetric and menstrual history"), None, _marital(case)),
        Section(Text("家族史", "Family history"), "10157-6", lines(real(case.get("family")), relative, 8, case.locale)),
        Section(Text("体格检查", "Physical examination"), "29545-1", vital_signs(case, 16)),
        Section(Text("辅助检查", "Tests before admission"), "30954-2", tests(case, 24)),
        Section(Text("初步诊断", "Admission diagnosis"), "46241-6", diagnoses(case, 10)),
    ]
    doubts = found(findings, case.locale)
    return [*parts, Section(Text("需核对", "To be verified"), None, doubts)] if doubts else parts


def _general(case: Case) -> list[Line]:
    """Sex, age and time of admission; the name stays with the Patient that the note refers to."""
    person = cited([source_of(case.patient)]) if case.patient else ()
    admitted = day(case.trigger.get("period"))
    shown = [Line(who(case.patient, case.now, case.locale), person)]
    if admitted:
        text = Text(f"入院日期 {admitted}", f"Admitted {admitted}").in_(case.locale)
        shown.append(Line(text, trigger_source(case)))
    return shown


def _complaint(case: Case) -> list[Line]:
    return [Line(reason, trigger_source(case)) for reason in reasons(case.trigger)]


def _stay(case: Case) -> str:
    named = ", ".join(reasons(case.trigger)) or NOT_RECORDED.in_(case.locale)
    admitted = day(case.trigger.get("period")) or NOT_RECORDED.in_(case.locale)
    return Text(f"入院 {admitted},原因: {named}", f"admitted {admitted}, reason: {named}").in_(case.locale)


def _social(case: Case) -> list[Line]:
    return lines(newest(case.get("social")), observation, 6, case.locale)


def _marital(case: Case) -> list[Line]:
    status = display((case.patient or {}).get("maritalStatus"))
    label = Text("婚姻状况", "marital status").in_(case.locale)
    return [Line(f"{label}: {status}", cited([source_of(case.patient)]))] if status and case.patient else []
