"""pre_visit.health_education (健康宣教/疾病预防): what a patient should know, in plain words, from documents alone.

Before an appointment, after a confirmed diagnosis, when a vaccine is due. Each sentence cites a passage; where the
model gives none that does, the passages stand there themselves. Without a passage nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from plugins.drafting import PROBLEMS, person, problem_lines, trigger_source
from plugins.fhir_text import (
    Line,
    age_in_months,
    clean,
    codes,
    deceased,
    display,
    listed,
    source_of,
    subject,
)
from plugins.hookspecs import hookimpl
from plugins.messages import URGENT, listing, to_patient
from plugins.passages import by_source, passage_facts, quote
from plugins.patient_language import in_languages, language_facts, spoken, written_in
from plugins.record_lines import condition, facts
from plugins.record_parts import reasons
from plugins.record_queries import PROBLEMS as PROBLEM_QUERY
from plugins.scenario import (
    Case,
    Draft,
    Fact,
    Finding,
    KnowledgeQuery,
    Locale,
    Prompt,
    Question,
    Resource,
    Risk,
    Scenario,
    Stage,
    Statement,
    Text,
    Trigger,
)

#: House rule: until this birthday a parent or guardian is written to (the age at which paediatrics ends in China).
_CHILD_MONTHS = 14 * 12

_TITLE = Text(zh="健康宣教(AI 草稿)", en="Health information (AI draft)")
_OCCASION = Text("缘由", "Occasion")
_HELLO = Text("您好,以下内容供您了解:", "Hello. This may help you:")
_TO_PARENTS = Text("致患儿家长,以下内容供您了解:", "To the parent or guardian. This may help you:")
_ORIGINS = Text("资料出处", "From these documents")
_VISIT = Text("预约就诊当天 携带证件资料 报到", "appointment on the day, what to bring, check in")
_INSTRUCTION = Text(
    zh=(
        "你协助护士写给患者的健康宣教。只根据“资料”行给出 points:最多 5 句,每句不超过 40 字,小学毕业即能读懂,"
        "与“缘由”相关,用“患者语言”,每句引用所依据的资料行;患者是儿童时写给家长。资料不相关时给空列表。不诊断,不给用药或剂量建议。"
    ),
    en=(
        "You help a nurse write health information for a patient. From the lines called document alone give points: at "
        "most 5 sentences of up to 20 plain words that a twelve-year-old understands, about the occasion, in the "
        "patient's language, each citing the document lines it rests on; to the parent where the patient is a child; "
        "an empty list where no document fits. No diagnosis, no advice on medicines or doses."
    ),
)


class Point(Statement):
    """One plain sentence."""

    text: Annotated[str, Field(max_length=140)]


class EducationAnswer(BaseModel):
    """What the model may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: Annotated[list[Point], Field(max_length=5)]


class HealthEducation(Scenario[EducationAnswer]):
    """One Communication in preparation, with the documents that it rests on."""

    id = "pre_visit.health_education"
    version = "1.0.0"
    title = Text(zh="健康宣教/疾病预防", en="Health education")
    stage = Stage.PRE_VISIT
    risk = Risk.A
    triggers = (
        Trigger("Appointment", where={"status": ("booked",)}, why="a visit is coming"),
        Trigger(
            "Condition",
            where={
                "verificationStatus.coding.code": ("confirmed",),
                "clinicalStatus.coding.code": ("active", "recurrence", "relapse"),
            },
            why="a diagnosis has been confirmed",
        ),
        Trigger(
            "ImmunizationRecommendation",
            where={"recommendation.forecastStatus.coding.code": ("due", "overdue")},
            why="a vaccine is due",
        ),
    )
    record = (PROBLEM_QUERY,)
    knowledge = (KnowledgeQuery("topic", cap=2), KnowledgeQuery("visit", cap=1))
    output_model = EducationAnswer
    max_tokens = 600
    deadline = timedelta(minutes=30)
    prompt_version = "health-education-1"

    def questions(self, case: Case) -> Mapping[str, Sequence[Question]]:
        """What the occasion is about, in the record's words; for an appointment also how to come to it."""
        topic = _topic(case.trigger)
        looked_for = {"topic": in_languages(topic, written_in(topic, spoken(case)), case.locale)}
        if case.trigger.get("resourceType") == "Appointment":
            looked_for["visit"] = in_languages(_VISIT, spoken(case), case.locale)
        return looked_for

    def prompt(self, case: Case) -> Prompt:
        """The occasion, for whom, the passages."""
        occasion = Fact(source_of(case.trigger), f"{_OCCASION.in_(case.locale)}: {_occasion(case)}")
        problems = facts(PROBLEMS, problem_lines(case, 3), case.locale)
        about = [occasion, *language_facts(case), person(case)]
        return Prompt(_INSTRUCTION.in_(case.locale), [*about, *passage_facts(case), *problems])

    def drafts(self, case: Case, answer: EducationAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The message; none without a passage, and none after a death."""
        patient = subject(case)
        if patient is None or deceased(case.patient) or not by_source(case):
            return ()
        return [_message(case, patient, answer)]


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [HealthEducation()]


def _topic(trigger: Resource) -> str:
    """What to look for: reasons of a visit, name of a diagnosis, names of the vaccines that are due."""
    kind = trigger.get("resourceType")
    if kind == "Condition":
        return display(trigger.get("code"))
    if kind == "Appointment":
        return clean(" ".join([*reasons(trigger), str(trigger.get("description") or "")]))
    due = [r for r in listed(trigger, "recommendation") if codes(r.get("forecastStatus")) & {"due", "overdue"}]
    vaccines = [display(vaccine) for each in due for vaccine in listed(each, "vaccineCode")]
    return " ".join(filter(None, dict.fromkeys(vaccines)))


def _occasion(case: Case) -> str:
    topic = _topic(case.trigger)
    kinds = {
        "Appointment": Text(f"已预约就诊 {topic}", f"an appointment is booked {topic}"),
        "Condition": Text("已确诊", "a diagnosis has been confirmed"),
        "ImmunizationRecommendation": Text(f"应接种疫苗 {topic}", f"a vaccine is due {topic}"),
    }
    said = kinds[str(case.trigger["resourceType"])].in_(case.locale)
    named = condition(case.trigger, case.locale) if case.trigger["resourceType"] == "Condition" else ""
    return f"{said} {named}".strip()


def _message(case: Case, patient: str, answer: EducationAnswer) -> Draft:
    language = _language(case, answer)
    months = age_in_months(case.patient, case.now)
    hello = (_TO_PARENTS if months is not None and months < _CHILD_MONTHS else _HELLO).in_(language)
    quoted = quote(case, _points(case, answer), language)
    closing, origins = URGENT.in_(language), _ORIGINS.in_(language)
    text = [hello, *listing(quoted.lines), origins, *listing(quoted.origins), closing]
    sources = tuple(dict.fromkeys((*trigger_source(case), *quoted.sources)))
    resource = to_patient(
        case,
        patient,
        title=_TITLE,
        kind=("instruction", "Instruction"),
        sections=[(hello, [*quoted.lines, Line(closing)]), (origins, quoted.origins)],
        text="\n".join(text),
        sources=sources,
        language=language,
    )
    return Draft("message", resource, sources)


def _points(case: Case, answer: EducationAnswer) -> Sequence[Statement]:
    """What the model says on passages; where that is nothing, the passages in their own words."""
    known = by_source(case)
    resting = [point for point in answer.points if not known.keys().isdisjoint(point.sources)]
    return resting or [Statement(text=passage.text, sources=(source,)) for source, passage in known.items()]


def _language(case: Case, answer: EducationAnswer) -> Locale:
    """In which of the two languages the message came out."""
    return written_in(" ".join(point.text for point in _points(case, answer)), spoken(case))
