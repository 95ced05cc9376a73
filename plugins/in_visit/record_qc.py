"""in_visit.record_qc (电子病历自动纠错): where a note contradicts the structured record, or lacks what it must have.

Rules compare sex, age, side, allergies, doses and days, and look for mandatory parts (`plugins/note_checks.py`); what
could harm if somebody acted on it is written before the model is asked. What the model suspects beyond that is written
as such, and only where it cites both the note and another resource. Nothing is corrected: a person decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from plugins import note_checks, note_text
from plugins.drafting import background, person, stated
from plugins.fhir_text import Line, source_of
from plugins.hookspecs import hookimpl
from plugins.issues import Issue, at_once, drafts_of, issue, later
from plugins.record_lines import facts, lines, procedure, real
from plugins.record_queries import ALLERGIES as ALLERGY_QUERY
from plugins.record_queries import MEDICATIONS as MEDICATION_QUERY
from plugins.record_queries import PROBLEMS as PROBLEM_QUERY
from plugins.scenario import (
    Case,
    Draft,
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

#: Sentences of the note that the model sees: as many as leave room for the record.
_SHOWN = 24

_NOTE = Text("文书", "Note")
_PROCEDURES = Text("操作", "Procedures")
_INSTRUCTION = Text(
    zh=(
        "你协助病案质控员。比较“文书”各行与其余病历各行,给出 suspected:最多 3 条疑似矛盾(侧别、性别、日期、剂量、诊断),"
        "每条一句,sources 必须同时引用文书一行和与之矛盾的另一行;没有就给空列表。不判断哪一处正确,不推断。"
    ),
    en=(
        "You help a records auditor. Compare the lines marked Note with the other lines of the record and give "
        "suspected: at most 3 suspected contradictions (side, sex, dates, dose, diagnosis), one sentence each; sources "
        "must cite one Note line and the other line that it contradicts; an empty list if there are none. Do not judge "
        "which is right."
    ),
)


class Suspicion(Statement):
    """One suspected contradiction."""

    text: Annotated[str, Field(max_length=160)]


class QcAnswer(BaseModel):
    """What the model may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suspected: Annotated[list[Suspicion], Field(max_length=3)]


class RecordQc(Scenario[QcAnswer]):
    """A DetectedIssue for each contradiction, with both places quoted."""

    id = "in_visit.record_qc"
    version = "1.0.0"
    title = Text(zh="电子病历自动纠错", en="Record quality control")
    stage = Stage.IN_VISIT
    risk = Risk.B
    triggers = (
        Trigger(
            "DocumentReference",
            where={"status": ("current",)},
            fhirpath="content.attachment.data.exists()",
            why="a note with text inside was written or amended",
        ),
        Trigger(
            "Composition",
            where={"status": ("preliminary", "final", "amended")},
            why="a note was written or amended",
        ),
    )
    record = (
        PROBLEM_QUERY,
        MEDICATION_QUERY,
        ALLERGY_QUERY,
        RecordQuery("procedures", "Procedure", {"patient": "{patient}"}, cap=15, sort="-date"),
        RecordQuery("orders", "ServiceRequest", {"patient": "{patient}", "status": "active"}, cap=15, sort="-authored"),
        RecordQuery("encounters", "Encounter", {"patient": "{patient}"}, cap=10, sort="-date"),
    )
    output_model = QcAnswer
    max_tokens = 600
    deadline = timedelta(minutes=10)
    prompt_version = "record-qc-1"

    def prompt(self, case: Case) -> Prompt:
        """The note's sentences, then the record that they are held against."""
        note = [Line(s, (source_of(case.trigger),)) for s in note_text.sentences(case.trigger)[:_SHOWN]]
        operations = lines(real(case.get("procedures")), procedure, 5, case.locale)
        record = [
            person(case),
            *background(case, allergies=4, problems=8, medications=8),
            *facts(_PROCEDURES, operations, case.locale),
        ]
        noted = facts(_NOTE, note, case.locale)
        return Prompt(_INSTRUCTION.in_(case.locale), [*noted[:8], *record, *noted[8:]])

    def rules(self, case: Case) -> Sequence[Finding]:
        """Contradictions between the note and the record, and parts that it lacks."""
        return [each.finding for each in note_checks.issues(case)]

    def rule_drafts(self, case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The wrong side, the wrong sex, the denied allergy: a DetectedIssue each."""
        return drafts_of(case, at_once(note_checks.issues(case)))

    def drafts(self, case: Case, answer: QcAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The other contradictions, and what the model suspects."""
        return drafts_of(case, [*later(note_checks.issues(case)), *_suspected(case, answer)])


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [RecordQc()]


def _suspected(case: Case, answer: QcAnswer) -> list[Issue]:
    """What the model says, where it rests on the note and on something else."""
    own = source_of(case.trigger)
    text = Text("模型疑似矛盾,未经规则证实", "Suspected by the model, confirmed by no rule")
    both = [line for line in stated(answer.suspected) if own in line.sources and len(line.sources) > 1]
    return [issue("suspected", Severity.INFO, text, [line], "careloom in_visit.record_qc (model)") for line in both]
