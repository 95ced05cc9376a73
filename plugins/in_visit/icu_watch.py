"""in_visit.icu_watch (重症预警): NEWS2 from the newest vital signs, and who must be told.

The score is a rule (`plugins/news2.toml`, Royal College of Physicians 2017). From 7 on it is written before the model
is asked; the model only words what in the record bears on it. What was not measured is named and never taken as normal.
Nothing is written for children under 16 and in pregnancy, which the score excludes, nor for what is over a day old.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from plugins import vital_signs
from plugins.conditions import pregnancies
from plugins.drafting import (
    AI_DRAFT,
    all_sources,
    background,
    found,
    notes,
    person,
    rule_facts,
    stated,
    truncated_note,
)
from plugins.fhir_text import (
    DEVICE,
    Line,
    age_in_months,
    cited,
    clean,
    coded,
    codes,
    first,
    instant,
    listed,
    moment,
    narrative,
    references,
    source_of,
    subject,
)
from plugins.hookspecs import hookimpl
from plugins.news2 import CITATION, YOUNGEST_YEARS
from plugins.news2_set import FLAGGED, VitalSet, vital_set
from plugins.record_lines import facts, lines, observation, real
from plugins.record_queries import MEDICATIONS as MEDICATION_QUERY
from plugins.record_queries import PROBLEMS as PROBLEM_QUERY
from plugins.red_flag_drafts import FLAG_DETAIL, FLAG_SYSTEM, Review, flag, raise_flags
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

#: How far back the record is read, and how old a trigger may be: an older one is history, not a warning.
_WATCHED = timedelta(hours=24)
#: How far a monitor's clock may be ahead of ours.
_CLOCKS = timedelta(minutes=10)
#: House rule: a flag holds for so long unless the score rises, so that a monitor's every heartbeat raises no new one.
_FLAG_HOLDS = timedelta(hours=1)

_REVIEW = Review(
    title=Text("紧急人工复核: NEWS2 ≥ 7", "Urgent review by a person: NEWS2 of 7 or more"),
    urgency=Text("立即", "at once"),
    priority="stat",
    within=timedelta(0),
)
_INSTRUCTION = Text(
    zh=(
        "你协助监护护士。早期预警评分已由规则算出,不得改动或重算。根据病历数据给出 context:最多 3 句,"
        "写病历中与本次评分有关的事实(异常生命体征、化验、诊断、用药);不推断诊断,不给治疗建议。"
    ),
    en=(
        "You help a nurse who watches patients. The early warning score has been computed by rule: neither change nor "
        "recompute it. From the record give context: at most 3 sentences with facts of the record that bear on the "
        "score (abnormal vital signs, results, diagnoses, medicines); infer no diagnosis and advise no treatment."
    ),
)
_VITALS = Text("生命体征", "Vital signs")
_LABS = Text("化验", "Results")


class Sentence(Statement):
    """One fact that bears on the score."""

    text: Annotated[str, Field(max_length=140)]


class WatchAnswer(BaseModel):
    """What the model may say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    context: Annotated[list[Sentence], Field(max_length=3)]


class IcuWatch(Scenario[WatchAnswer]):
    """NEWS2 as RiskAssessment; a Flag from 5 or for a single 3; from 7 on Flag and Task before any model is asked."""

    id = "in_visit.icu_watch"
    version = "1.0.0"
    title = Text(zh="重症预警", en="Intensive care watch")
    stage = Stage.IN_VISIT
    risk = Risk.C
    triggers = (
        Trigger(
            "Observation",
            where={
                "status": ("preliminary", "final", "amended", "corrected"),
                "category.coding.code": ("vital-signs",),
                "code.coding.code": (*vital_signs.CODES, *vital_signs.PANELS),
            },
            why="a vital sign that NEWS2 scores was measured",
        ),
    )
    record = (
        RecordQuery(
            "vitals",
            "Observation",
            {"patient": "{patient}", "code": ",".join((*vital_signs.CODES, *vital_signs.PANELS))},
            _WATCHED,
            "date",
            cap=60,
            sort="-date",
        ),
        RecordQuery("goals", "Goal", {"patient": "{patient}"}, cap=10),
        RecordQuery("flags", "Flag", {"patient": "{patient}"}, _FLAG_HOLDS, "date", cap=10),
        RecordQuery(
            "labs", "Observation", {"patient": "{patient}", "category": "laboratory"}, _WATCHED, "date", 12, "-date"
        ),
        PROBLEM_QUERY,
        MEDICATION_QUERY,
    )
    output_model = WatchAnswer
    max_tokens = 500
    deadline = timedelta(minutes=1)
    prompt_version = "icu-watch-1"

    def prompt(self, case: Case) -> Prompt:
        """The score, then what it rests on, then what the patient has."""
        watch = _watch(case)
        record = [
            *facts(_VITALS, watch.lines(case.locale) if watch else (), case.locale),
            *facts(_LABS, lines(real(case.get("labs")), observation, 8, case.locale), case.locale),
            *background(case, allergies=0, problems=6, medications=6),
        ]
        return Prompt(
            _INSTRUCTION.in_(case.locale), [*rule_facts(self.rules(case), case.locale), person(case), *record]
        )

    def rules(self, case: Case) -> Sequence[Finding]:
        """The score and its response; what is missing; where the score does not apply."""
        watch = _watch(case)
        if watch is None:
            return ()
        if excluded := _excluded(case):
            return [excluded]
        return watch.findings

    def rule_drafts(self, case: Case, findings: Sequence[Finding]) -> Sequence[Draft]:
        """Flag and Task of a score of 7 or more, unless a flag of the last hour still holds."""
        watch = _watch(case)
        return () if watch is None or _held(case, watch) else raise_flags(case, findings, _REVIEW)

    def drafts(self, case: Case, answer: WatchAnswer, findings: Sequence[Finding]) -> Sequence[Draft]:
        """The score as RiskAssessment, and the Flag of a score that is no red flag."""
        patient, watch = subject(case), _watch(case)
        if patient is None or watch is None or _excluded(case):
            return ()
        warnings = [f for f in findings if f.severity is Severity.WARNING and f.code in FLAGGED]
        flags = [] if _held(case, watch) else [flag(case, finding, patient) for finding in warnings]
        return [_assessment(case, patient, watch, findings, stated(answer.context)), *flags]


@hookimpl
def careloom_scenarios() -> Iterable[Scenario[Any]]:
    """This plugin's scenario."""
    return [IcuWatch()]


def _watch(case: Case) -> VitalSet | None:
    """The set at the time of the trigger; None where it says no time, is no news, or another event speaks for it."""
    at = vital_signs.taken(case.trigger)
    if at is None or not case.now - _WATCHED <= at <= case.now + _CLOCKS:
        return None
    held = {source_of(r): r for r in (*case.get("vitals"), case.trigger)}
    watch = vital_set(held.values(), case.get("goals"), at)
    return watch if watch and _speaks(case, watch) else None


def _speaks(case: Case, watch: VitalSet) -> bool:
    """Whether the trigger speaks for the set: of measurements that are written together only the last one does.

    The last by the server's clock, then by id. Whoever comes last sees all the others; where the server's clock shows
    no fractions of a second, everyone speaks, and nobody is missed.
    """
    counted = {reading.source for reading in watch.readings.values()}
    stamps = {
        source_of(r): str((r.get("meta") or {}).get("lastUpdated") or "")
        for r in case.get("vitals")
        if source_of(r) in counted
    }
    times = {source: moment(stamp) for source, stamp in stamps.items() if "." in stamp}
    own = source_of(case.trigger)
    exact = own in times and len(times) == len(stamps) and None not in times.values()
    return not exact or own == max(times, key=lambda source: (times[source] or case.now, source))


def _excluded(case: Case) -> Finding | None:
    """The report excludes children under 16 and pregnant women."""
    months = age_in_months(case.patient, case.now)
    if months is not None and months < YOUNGEST_YEARS * 12 and case.patient is not None:
        why, sources = Text("16 岁以下", "under 16 years"), [source_of(case.patient)]
    elif pregnant := pregnancies(case):
        why, sources = Text("妊娠", "pregnancy"), [source_of(r) for r in pregnant]
    else:
        return None
    text = Text(f"NEWS2 不适用: {why.zh}", f"NEWS2 does not apply: {why.en}")
    return Finding("news2-not-applicable", Severity.INFO, text, cited(sources), CITATION)


def _held(case: Case, watch: VitalSet) -> bool:
    """Whether an active flag of the same response, raised within the hour, rests on a score that was no lower."""
    for raised in real(case.get("flags")):
        since = moment((raised.get("period") or {}).get("start"))
        ours = raised.get("status") == "active" and watch.score.response.code in codes(raised.get("code"))
        ours = ours and first(raised.get("code") or {}, "coding").get("system") == FLAG_SYSTEM
        if not ours or since is None or not case.now - _FLAG_HOLDS < since <= case.now:
            continue
        named = {
            str((e.get("valueReference") or {}).get("reference"))
            for e in listed(raised, "extension")
            if e.get("url") == FLAG_DETAIL
        }
        earlier = vital_set([r for r in case.get("vitals") if source_of(r) in named], case.get("goals"), since)
        if earlier is not None and earlier.score.total >= watch.score.total:
            return True
    return False


def _assessment(
    case: Case, patient: str, watch: VitalSet, findings: Sequence[Finding], context: Sequence[Line]
) -> Draft:
    locale, response = case.locale, watch.score.response
    total = watch.total.in_(locale)
    shown = [*found(findings, locale), *watch.lines(locale), *truncated_note(case, ["vitals"], locale)]
    sections = [(total, shown), (Text("相关病历", "From the record").in_(locale), context)]
    sources = cited([*watch.sources, *all_sources(context)])
    resource = {
        "resourceType": "RiskAssessment",
        "text": narrative(sections, locale, head=AI_DRAFT.in_(locale)),
        "status": "preliminary",
        "method": coded("NEWS2 (RCP 2017)", ("urn:careloom:method", "news2", None)),
        "code": coded(total),
        "subject": {"reference": patient},
        "occurrenceDateTime": instant(watch.at),
        "performer": {"reference": DEVICE},
        "basis": references(sources),
        "prediction": [
            {
                "outcome": coded(response.text.in_(locale), ("urn:careloom:news2", response.code, None)),
                "qualitativeRisk": coded(response.risk, ("urn:careloom:news2-risk", response.risk, None)),
                "rationale": clean("; ".join(line.text for line in shown), 2000),
            }
        ],
        **notes([*shown, *context]),
    }
    return Draft("score", resource, sources)
