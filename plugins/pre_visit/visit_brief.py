"""pre_visit.visit_brief (诊前病史摘要): the whole record on one page, each line linked to what it came from.

Every part is taken from the record by code, newest first and capped; the model only says, on top, what in it bears on
this visit. Where the record contradicts itself, the last part says so.
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
    problem_lines,
    stated,
    trigger_source,
    truncated_note,
)
from plugins.fhir_text import NOT_RECORDED, Line, cited, clean, day, source_of, subject
from plugins.hookspecs import hookimpl
from plugins.notes import LOINC, Section, document
from plugins.record_lines import encounter, facts, immunization, lines, real, relative
from plugins.record_parts import operations, past, reasons, tests, vital_signs
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

_TITLE = Text(zh="诊前病史摘要(AI 草稿)", en="Visit brief (AI draft)")
_TYPE = (LOINC, "60591-5", "Patient summary Document")
_VISIT = Text("本次就诊", "This visit")
_TESTS = Text("检查", "Tests")
_VISITS = Text("既往就诊", "Earlier visit")
_DONE = Text("手术与操作", "Procedure")
_INSTRUCTION = Text(
    zh=(
        "你协助门诊医生接诊前了解患者。根据病历数据给出 points:最多 4 句,写病历中与本次就诊原因有关、"
        "医生首先要知道的事实(相关疾病、用药、过敏、异常结果);只复述事实,不推断诊断,不给建议。"
    ),
    en=(
        "You help a doctor who is about to see a patient. From the record give points: at most 4 sentences with the "
        "facts that bear on the reason for this visit and that the doctor must know first (diseases, medicines, "
        "allergies, abnormal results); repeat facts only, infer no diagnosis, give no advice."
    ),
)


class Point(Statement):
    """One sentence."""

    text: Annotated[str, Field(max_length=140)]


class BriefAnswer(BaseModel):
    """What the model may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: Annotated[list[Point], Field(max_length=4)]


class VisitBrief(Scenario[BriefAnswer]):
    """One page as DocumentReference."""

    id = "pre_visit.visit_brief"
    version = "1.0.0"
    title = Text(zh="诊前病史摘要", en="Visit brief")
    stage = Stage.PRE_VISIT
    risk = Risk.A
    triggers = (
        Trigger("Appointment", where={"status": ("booked", "arrived", "checked-in")}, why="a patient is coming in"),
    )
    record = (
        PROBLEM_QUERY,
        PAST_QUERY,
        MEDICATION_QUERY,
        ALLERGY_QUERY,
        RecordQuery("procedures", "Procedure", {"patient": "{patient}", "status": "completed"}, cap=10, sort="-date"),
        recent("encounters", "Encounter", days=730, cap=6),
        recent("vitals", "Observation", days=180, cap=16, category="vital-signs"),
        recent("labs", "Observation", days=365, cap=30, category="laboratory"),
        recent("reports", "DiagnosticReport", days=365, cap=8),
        RecordQuery("vaccines", "Immunization", {"patient": "{patient}", "status": "completed"}, cap=8, sort="-date"),
        RecordQuery("family", "FamilyMemberHistory", {"patient": "{patient}"}, cap=8),
    )
    output_model = BriefAnswer
    max_tokens = 600
    deadline = timedelta(minutes=10)
    prompt_version = "visit-brief-1"

    def prompt(self, case: Case) -> Prompt:
        """Why the patient comes, then what is known, most telling first."""
        visit = Fact(source_of(case.trigger), f"{_VISIT.in_(case.locale)}: {_reason(case)}")
        record = [
            *background(case, allergies=4, problems=8, medications=8),
            *facts(_TESTS, tests(case, 8), case.locale),
            *facts(_VISITS, _visits(case, 4), case.locale),
            *facts(_DONE, operations(case, 4), case.locale),
        ]
        return Prompt(_INSTRUCTION.in_(case.locale), [visit, person(case), *record])

    def rules(self, case: Case) -> Sequence[Finding]:
        """Where the record contradicts itself."""
        return contradictions(case)

    def drafts(self, case: Case, answer: BriefAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The page; it is honest without a word of the model."""
        patient = subject(case)
        if patient is None:
            return ()
        sections = _sections(case, answer, findings)
        sources = cited([*trigger_source(case), *(s for part in sections for s in all_sources(part.lines))])
        return [Draft("brief", document(case, patient, _TITLE, _TYPE, sections), sources)]


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [VisitBrief()]


def _sections(case: Case, answer: BriefAnswer, findings: Sequence[Finding]) -> list[Section]:
    """One page: a part each, the most urgent first; each says where more was left out."""
    locale = case.locale
    who = person(case)
    vaccines = lines(real(case.get("vaccines")), immunization, 6, locale)
    family = lines(real(case.get("family")), relative, 4, locale)
    doubts = found(findings, locale)
    return [
        Section(_VISIT, None, [Line(_reason(case), trigger_source(case)), Line(who.text, cited([who.source]))]),
        Section(Text("要点", "Points for this visit"), None, stated(answer.points)),
        Section(Text("过敏史", "Allergies"), None, allergy_lines(case, 8)),
        Section(Text("在诊问题", "Active problems"), None, _with_note(case, problem_lines(case, 10), "problems")),
        Section(Text("用药", "Medications"), None, _with_note(case, medication_lines(case, 10), "medications")),
        Section(Text("生命体征", "Vital signs"), None, vital_signs(case, 6)),
        Section(_TESTS, None, tests(case, 8)),
        Section(_VISITS, None, _visits(case, 4)),
        Section(_DONE, None, operations(case, 5)),
        Section(Text("既往疾病", "Past problems"), None, past(case, 6)),
        Section(Text("预防接种", "Immunizations"), None, vaccines),
        Section(Text("家族史", "Family history"), None, family),
        *([Section(Text("需核对", "To be verified"), None, doubts)] if doubts else []),
    ]


def _reason(case: Case) -> str:
    said = [*reasons(case.trigger), *(clean(case.trigger.get(name) or "") for name in ("description", "comment"))]
    on = day(case.trigger.get("start"))
    return ", ".join(filter(None, dict.fromkeys([*said, on]))) or NOT_RECORDED.in_(case.locale)


def _visits(case: Case, limit: int) -> list[Line]:
    return lines(real(case.get("encounters")), encounter, limit, case.locale)


def _with_note(case: Case, shown: list[Line], query: str) -> list[Line]:
    return [*shown, *truncated_note(case, [query], case.locale)]
