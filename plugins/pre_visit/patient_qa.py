"""pre_visit.patient_qa (患者问答/导诊): a prepared answer to a patient's message, from the hospital's documents alone.

Each sentence of the answer cites a passage with its title, date and origin; what rests on none is left out, and without
any the answer says so and a person is asked. Red flags are rules: they are written, with a reply that sends the patient
to help, before the model is asked. Questions about a diagnosis or a medicine go to a person (`patient_questions.toml`).
What somebody else writes for the patient (RelatedPerson) does not start this version: whose words they are is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from plugins import patient_questions, red_flags
from plugins.dialogue import thread
from plugins.drafting import PROBLEMS, found, person, problem_lines, trigger_source
from plugins.fhir_text import Line, age_in_months, clean, deceased, listed, references, source_of, subject
from plugins.hookspecs import hookimpl
from plugins.messages import URGENT, listing, to_patient
from plugins.passages import Quoted, passage_facts, quote
from plugins.patient_language import in_languages, written_in
from plugins.record_lines import facts, real
from plugins.record_queries import PROBLEMS as PROBLEM_QUERY
from plugins.red_flag_drafts import Review, raise_flags
from plugins.scenario import (
    Case,
    Draft,
    Fact,
    Finding,
    KnowledgeQuery,
    Locale,
    Prompt,
    Question,
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

#: A question shorter than this says too little to look for by itself: "And on Sundays?" goes with the one before it.
_SHORT = {"zh": 10, "en": 30}

_TITLE = Text(zh="患者问答(AI 草稿)", en="Answer to a patient (AI draft)")
_ASKED = Text("患者提问", "The patient asks")
_EARLIER = Text("此前消息", "Earlier message")
_ANSWER = Text("您好,关于您的问题:", "Hello. About your question:")
_ORIGINS = Text("资料出处", "From these documents")
_LIMIT = Text(
    zh="以上内容来自所列资料,不能代替医生的诊断和治疗。",
    en="This comes from the documents named and does not take the place of a doctor's advice.",
)
_NOTHING = Text(
    zh="您好,您的消息已收到。知识库中没有能回答它的资料,已转交医务人员回复。",
    en="Hello. We have your message. Our documents hold no answer to it, so a member of staff will reply.",
)
_WITHHELD = Text(
    zh="您好,您的消息已收到。诊断和用药的问题须由医生或药师回答,已转交医务人员回复。",
    en=(
        "Hello. We have your message. Questions about a diagnosis or a medicine are for a doctor or pharmacist, so a "
        "member of staff will reply. Please change nothing about your medicines until then."
    ),
)
_AT_ONCE = Text(
    zh="您好,您描述的情况可能需要立即处理:请现在就拨打 120 或到最近的急诊科,不要等待回复。",
    en=(
        "Hello. What you describe may need help at once: call the emergency number or go to the nearest emergency "
        "department now. Do not wait for a reply."
    ),
)
_REVIEW = Review(
    title=Text("紧急人工复核: 患者消息中的红旗", "Urgent review by a person: red flag in a patient's message"),
    urgency=Text("立即联系患者", "contact the patient at once"),
    priority="stat",
    within=timedelta(0),
)
_HAND_OVER = Text("请人工回复患者消息", "Please answer a patient's message")
_INSTRUCTION = Text(
    zh=(
        "你协助医院客服回复患者消息。只根据“资料”行给出 answer:最多 4 句,用患者提问的语言,通俗易懂,"
        "每句引用所依据的资料行;资料没有回答问题时给空列表。不诊断,不建议用药、剂量或停药,不猜测。"
    ),
    en=(
        "You help a hospital's staff answer a patient's message. From the lines called document alone give answer: at "
        "most 4 plain sentences in the language of the question, each citing the document lines it rests on; an empty "
        "list where the documents do not answer it. No diagnosis, no advice on medicines or doses, no guesses."
    ),
)


class Sentence(Statement):
    """One sentence of the answer."""

    text: Annotated[str, Field(max_length=160)]


class QaAnswer(BaseModel):
    """What the model may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    answer: Annotated[list[Sentence], Field(max_length=4)]


class PatientQa(Scenario[QaAnswer]):
    """A Communication in preparation that answers the patient's; a Task where a person has to."""

    id = "pre_visit.patient_qa"
    version = "1.0.0"
    title = Text(zh="患者问答/导诊", en="Answers to patients")
    stage = Stage.PRE_VISIT
    risk = Risk.B
    triggers = (
        Trigger(
            "Communication",
            where={"status": ("completed",)},
            fhirpath="sender.reference.contains('Patient/') and payload.exists()",
            why="a patient has written",
        ),
    )
    record = (
        RecordQuery(
            "thread",
            "Communication",
            {"patient": "{patient}", "status": "completed"},
            timedelta(days=30),
            "sent",
            cap=20,
            sort="-sent",
        ),
        PROBLEM_QUERY,
    )
    knowledge = (KnowledgeQuery("answers", cap=3),)
    output_model = QaAnswer
    max_tokens = 600
    deadline = timedelta(minutes=2)
    prompt_version = "patient-qa-1"

    def questions(self, case: Case) -> Mapping[str, Sequence[Question]]:
        """The message itself, in its language; a short one with the patient's message before it."""
        asked = _words(case.trigger)
        before = [_words(one) for one in _earlier(case) if _by_patient(one)]
        language = _language(case)
        short = len(asked) < _SHORT[language]
        return {"answers": in_languages(" ".join([*before[-1:], asked]) if short else asked, language, case.locale)}

    def prompt(self, case: Case) -> Prompt:
        """The question, the passages, then the thread and who asks."""
        asked = Fact(source_of(case.trigger), f"{_ASKED.in_(case.locale)}: {_words(case.trigger)}")
        before = [Fact(source_of(one), f"{_EARLIER.in_(case.locale)}: {_words(one)}") for one in _earlier(case)[-3:]]
        problems = facts(PROBLEMS, problem_lines(case, 3), case.locale)
        return Prompt(_INSTRUCTION.in_(case.locale), [asked, *passage_facts(case), *before, person(case), *problems])

    def rules(self, case: Case) -> Sequence[Finding]:
        """Red flags in the patient's words (`red_flags.toml`), and what a person must answer."""
        words, sources = _words(case.trigger), trigger_source(case)
        flags = red_flags.find([words], sources, age_in_months(case.patient, case.now))
        return [*flags, *patient_questions.find(words, sources)]

    def rule_drafts(self, case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
        """A Flag for each red flag, one Task for a person, and a reply that sends the patient to help."""
        flags = raise_flags(case, findings, _REVIEW)
        patient = subject(case)
        if not flags or patient is None:
            return flags
        return [*flags, _reply(case, patient, _AT_ONCE, (), quote(case, (), case.locale))]

    def drafts(self, case: Case, answer: QaAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The answer with its documents, or an honest reply and a Task; nothing after a red flag or a death."""
        patient = subject(case)
        urgent = any(finding.severity is Severity.RED_FLAG for finding in findings)
        if patient is None or urgent or deceased(case.patient):
            return ()
        withheld = patient_questions.of(findings)
        quoted = quote(case, () if withheld else answer.answer, _language(case))
        if quoted.lines:
            return [_reply(case, patient, _ANSWER, (_LIMIT, URGENT), quoted)]
        opening = _WITHHELD if withheld else _NOTHING
        return [_reply(case, patient, opening, (URGENT,), quoted), _hand_over(case, patient, withheld)]


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [PatientQa()]


def _words(communication: Resource) -> str:
    """What a message says, its parts one after another."""
    parts = (part.get("contentString") for part in listed(communication, "payload") if isinstance(part, Mapping))
    return clean(" ".join(part for part in parts if isinstance(part, str)), 600)


def _by_patient(communication: Resource) -> bool:
    return "Patient/" in str((communication.get("sender") or {}).get("reference"))


def _earlier(case: Case) -> list[Resource]:
    """The dialogue so far, oldest first, without the message that is to be answered."""
    own = source_of(case.trigger)
    return [one for one in thread(case.trigger, real(case.get("thread"))) if source_of(one) != own and _words(one)]


def _language(case: Case) -> Locale:
    return written_in(_words(case.trigger), case.locale)


def _reply(case: Case, patient: str, opening: Text, closing: Sequence[Text], quoted: Quoted) -> Draft:
    """The message to the patient, in the language of the question."""
    language = _language(case)
    first, last = opening.in_(language), [text.in_(language) for text in closing]
    origins = [_ORIGINS.in_(language), *listing(quoted.origins)] if quoted.origins else []
    sections = [
        (first, [*quoted.lines, *map(Line, last)]),
        *([(_ORIGINS.in_(language), quoted.origins)] if quoted.origins else []),
    ]
    sources = tuple(dict.fromkeys((*trigger_source(case), *quoted.sources)))
    answered = references(trigger_source(case))
    resource = {
        **to_patient(
            case,
            patient,
            title=_TITLE,
            kind=("notification", "Notification"),
            sections=sections,
            text="\n".join([first, *listing(quoted.lines), *origins, *last]),
            sources=sources,
            language=language,
        ),
        **({"inResponseTo": answered} if answered else {}),
    }
    return Draft("answer", resource, sources)


def _hand_over(case: Case, patient: str, withheld: Sequence[Finding]) -> Draft:
    why = found(withheld, case.locale) or [
        Line(Text("没有可引用的资料", "No document to cite was found").in_(case.locale), trigger_source(case))
    ]
    said = "; ".join(line.text for line in why)
    resource = task(
        case,
        patient,
        title=_HAND_OVER,
        code="answer-message",
        shown=why,
        said=said,
        priority="urgent" if withheld else "routine",
        within=timedelta(days=1),
    )
    return Draft("hand-over", resource, trigger_source(case))
