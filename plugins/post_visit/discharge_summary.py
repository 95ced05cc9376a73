"""post_visit.discharge_summary (出院小结): the summary of an inpatient stay, and the same in the patient's words.

Every part but the course is taken from the record by code; the model words the course, and plain sentences for the
patient. Parts and their order: 病历书写基本规范 (卫医政发〔2010〕11号) 第二十二条; codes: LOINC document sections.
A stay that ended in death has a document of its own kind (死亡记录) and does not start this one. Nor does a discharge
that is merely planned: FHIR R4 has no status for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from plugins.contradictions import contradictions
from plugins.drafting import (
    all_sources,
    allergy_lines,
    background,
    found,
    medication_lines,
    person,
    stated,
    trigger_source,
    truncated_note,
)
from plugins.fhir_text import (
    NOT_RECORDED,
    Line,
    cited,
    clean,
    day,
    deceased,
    display,
    draft,
    moment,
    source_of,
    subject,
)
from plugins.hookspecs import hookimpl
from plugins.messages import URGENT, listing, to_patient
from plugins.notes import LOINC, Section, composition, encounter_of
from plugins.patient_language import language_facts, spoken, written_in
from plugins.record_lines import facts, lines, real
from plugins.record_parts import diagnoses, operations, reasons, tests, vital_signs
from plugins.record_queries import ALLERGIES as ALLERGY_QUERY
from plugins.record_queries import MEDICATIONS as MEDICATION_QUERY
from plugins.record_queries import PROBLEMS as PROBLEM_QUERY
from plugins.scenario import (
    Case,
    Draft,
    Fact,
    Finding,
    Locale,
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

_TITLE = Text(zh="出院小结(AI 草稿)", en="Discharge summary (AI draft)")
_TYPE = (LOINC, "18842-5", "Discharge summary")
_FOR_PATIENT = Text(zh="出院小结患者版(AI 草稿)", en="Discharge summary for the patient (AI draft)")
_DIAGNOSIS = Text("本次诊断", "Diagnosis of this stay")
_DONE = Text("本次处置", "Done in this stay")
_TESTS = Text("检查", "Tests")
_COMING = Text("已预约", "Booked")
#: Reports that are still to come: values of diagnostic-report-status.
_PENDING = frozenset({"registered", "partial", "preliminary"})
_PENDING_SOURCE = (
    "Transitions of Care Consensus Policy Statement (Snow V et al., J Gen Intern Med 2009;24:971-976): "
    "the transition record includes test results and pending results"
)
_HELLO = Text("您好,这是您本次住院的小结:", "Hello. This sums up your stay in hospital:")
_TAKEN = Text("病历中您目前的用药(以医嘱为准):", "Your medicines as recorded (what your doctor ordered counts):")
_NEXT = Text("已预约的复诊:", "Booked for you:")
_INSTRUCTION = Text(
    zh=(
        "你协助病房医生写出院小结。根据病历数据给出 course:最多 4 句,按时间顺序写诊疗经过"
        "(主要问题、处置、有意义的结果);"
        "plain:最多 4 句,用“患者语言”和通俗的话把这次住院讲给患者听。只复述病历中的事实,不推断诊断,不给用药或剂量建议。"
    ),
    en=(
        "You help a ward doctor write a discharge summary. From the record give course: at most 4 sentences in order "
        "of time on what was found and done, with telling results; and plain: at most 4 sentences that tell the "
        "patient about the stay in plain words of the patient's language. Repeat only facts of the record, infer no "
        "diagnosis, advise no medicine and no dose."
    ),
)


class Sentence(Statement):
    """One sentence."""

    text: Annotated[str, Field(max_length=140)]


class DischargeAnswer(BaseModel):
    """What the model may say: for the doctors, then for the patient."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    course: Annotated[list[Sentence], Field(max_length=4)]
    plain: Annotated[list[Sentence], Field(max_length=4)]


class DischargeSummary(Scenario[DischargeAnswer]):
    """A preliminary Composition, and a Communication in preparation for the patient."""

    id = "post_visit.discharge_summary"
    version = "1.0.0"
    title = Text(zh="出院小结", en="Discharge summary")
    stage = Stage.POST_VISIT
    risk = Risk.B
    triggers = (
        Trigger(
            "Encounter",
            where={"status": ("finished",), "class.code": ("IMP", "ACUTE", "NONAC")},
            fhirpath="hospitalization.dischargeDisposition.coding.where(code = 'exp').empty()",
            why="an inpatient stay has ended, and not by death",
        ),
    )
    record = (
        RecordQuery("diagnoses", "Condition", {"encounter": "{encounter}"}, cap=12),
        RecordQuery("procedures", "Procedure", {"encounter": "{encounter}"}, cap=12),
        RecordQuery("reports", "DiagnosticReport", {"encounter": "{encounter}"}, cap=12),
        RecordQuery(
            "labs", "Observation", {"encounter": "{encounter}", "category": "laboratory"}, cap=30, sort="-date"
        ),
        RecordQuery(
            "vitals", "Observation", {"encounter": "{encounter}", "category": "vital-signs"}, cap=16, sort="-date"
        ),
        PROBLEM_QUERY,
        MEDICATION_QUERY,
        ALLERGY_QUERY,
        RecordQuery("coming", "Appointment", {"patient": "{patient}", "status": "booked"}, cap=5, sort="-date"),
    )
    output_model = DischargeAnswer
    max_tokens = 900
    deadline = timedelta(minutes=15)
    prompt_version = "discharge-summary-1"

    def prompt(self, case: Case) -> Prompt:
        """The stay, what was found and done in it, and what the patient goes home with."""
        stay = Fact(source_of(case.trigger), "; ".join(line.text for line in _stay(case, case.locale)))
        record = [
            *facts(_DIAGNOSIS, diagnoses(case, 5), case.locale),
            *facts(_DONE, operations(case, 5), case.locale),
            *facts(_TESTS, tests(case, 8), case.locale),
            *background(case, allergies=3, problems=5, medications=6),
        ]
        return Prompt(_INSTRUCTION.in_(case.locale), [stay, person(case), *language_facts(case), *record])

    def rules(self, case: Case) -> Sequence[Finding]:
        """Where the record contradicts itself, and results that are still to come."""
        pending = [r for r in case.get("reports") if r.get("status") in _PENDING]
        text = Text("出院时仍有未出的检查结果", "Results are still to come at discharge")
        sources = cited(source_of(report) for report in pending)
        late = [Finding("results-pending", Severity.WARNING, text, sources, _PENDING_SOURCE)] if sources else []
        return [*contradictions(case), *late]

    def drafts(self, case: Case, answer: DischargeAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The summary for the doctors to sign, and the message; nothing after a death."""
        patient = subject(case)
        if patient is None or deceased(case.patient):
            return ()
        sections = _sections(case, answer, findings)
        sources = cited([*trigger_source(case), *(s for part in sections for s in all_sources(part.lines))])
        note = Draft("summary", composition(case, patient, _TITLE, _TYPE, sections), sources)
        return [note, _message(case, patient, stated(answer.plain))]


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [DischargeSummary()]


def _sections(case: Case, answer: DischargeAnswer, findings: Sequence[Finding]) -> list[Section]:
    """The parts that 病历书写基本规范 prescribes, in its order; what must be checked comes last."""
    locale, who = case.locale, person(case)
    named = diagnoses(case, 10)
    doubts = found(findings, locale)
    note = truncated_note(case, ["diagnoses", "procedures", "medications", "reports", "labs"], locale)
    parts = [
        Section(Text("一般情况", "General"), None, [Line(who.text, cited([who.source])), *_stay(case, locale)]),
        Section(Text("入院情况", "Condition on admission"), None, _admitted_for(case)),
        Section(Text("入院诊断", "Admission diagnosis"), "46241-6", _of_use(case, "AD")),
        Section(Text("诊疗经过", "Hospital course"), "8648-8", [*stated(answer.course), *note]),
        Section(_DONE, "47519-4", operations(case, 10)),
        Section(_TESTS, "11493-4", tests(case, 12)),
        Section(Text("出院诊断", "Discharge diagnosis"), "11535-2", _of_use(case, "DD") or named),
        Section(Text("出院情况", "Condition on discharge"), "10184-0", vital_signs(case, 8)),
        Section(Text("过敏史", "Allergies"), "48765-2", allergy_lines(case, 12)),
        Section(Text("出院医嘱: 用药", "Discharge medications"), "10183-2", medication_lines(case, 15)),
        Section(Text("出院医嘱: 复诊", "Appointments"), "18776-5", _coming(case)),
    ]
    return [*parts, Section(Text("需核对", "To be verified"), None, doubts)] if doubts else parts


def _stay(case: Case, locale: Locale) -> list[Line]:
    """From when to when, and why."""
    period = case.trigger.get("period") or {}
    dates = [day(period.get(name)) or NOT_RECORDED.in_(locale) for name in ("start", "end")]
    text = Text(f"入院日期 {dates[0]},出院日期 {dates[1]}", f"Admitted {dates[0]}, discharged {dates[1]}")
    return [Line(text.in_(locale), trigger_source(case)), *_admitted_for(case)]


def _admitted_for(case: Case) -> list[Line]:
    return [Line(reason, trigger_source(case)) for reason in reasons(case.trigger)]


def _of_use(case: Case, use: str) -> list[Line]:
    """Diagnoses that the Encounter gives this use: AD on admission, DD at discharge (diagnosis-role)."""
    given = [d for d in case.trigger.get("diagnosis") or () if use in str(d.get("use"))]
    wanted = {str((d.get("condition") or {}).get("reference")) for d in given}
    chosen = [r for r in real(case.get("diagnoses")) if source_of(r) in wanted]
    return lines(chosen, lambda r: display(r.get("code")), 8, case.locale)


def _coming(case: Case) -> list[Line]:
    """Appointments that are booked and still to come."""
    ahead = [r for r in real(case.get("coming")) if (at := moment(r.get("start"))) and at > case.now]
    return lines(ahead, lambda r: _appointment(r, case.locale), 4, case.locale)


def _appointment(resource: Resource, locale: Locale) -> str:
    what = ", ".join(reasons(resource)) or clean(resource.get("description") or "") or Text("就诊", "visit").in_(locale)
    return f"{day(resource.get('start'))} {what}"


def _message(case: Case, patient: str, told: Sequence[Line]) -> Draft:
    """For the patient: the stay in plain words, medicines as they are prescribed, what is booked, when to seek help."""
    language = written_in(" ".join(line.text for line in told), spoken(case))
    parts = [
        (_HELLO, [*_stay(case, language)[:1], *told]),
        (_TAKEN, medication_lines(case, 15)),
        (_NEXT, _coming(case)),
    ]
    shown = [(title.in_(language), content) for title, content in parts if content]
    sections = [*shown, ("", [Line(URGENT.in_(language))])]
    sources = cited([*trigger_source(case), *(s for _, content in shown for s in all_sources(content))])
    text = [line for title, content in shown for line in (title, *listing(content))]
    resource = {
        **to_patient(
            case,
            patient,
            title=_FOR_PATIENT,
            kind=("instruction", "Instruction"),
            sections=sections,
            text="\n".join([*text, URGENT.in_(language)]),
            sources=sources,
            language=language,
        ),
        "basedOn": [{"reference": draft("summary")}],
        **encounter_of(case),
    }
    return Draft("for-patient", resource, sources)
