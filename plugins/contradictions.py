"""Where a record contradicts itself, by rule: what a doctor must settle before the note is signed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from plugins import drugs
from plugins.drafting import current_allergies
from plugins.fhir_text import cited, codes, display, moment, source_of
from plugins.record_lines import real
from plugins.scenario import Case, Finding, Resource, Severity, Text

_NKA_CODES = frozenset({"716186003", "409137002", "428607008", "no-known-allergies"})
NO_ALLERGY = re.compile(r"(?i)no known (?:\w+ )?allerg|无(?:已知|任何|药物|食物)*过敏|否认.{0,6}过敏")
_SOURCE = "病历书写基本规范 (卫医政发〔2010〕11号) 第三条: 客观、真实、准确; Joint Commission NPSG.03.06.01"


def contradictions(case: Case) -> list[Finding]:
    """Every contradiction between allergies, prescriptions, diagnoses and dates of one case."""
    return [*_allergies(case), *_prescriptions(case), *_diagnoses(case), *_dates(case)]


def _allergies(case: Case) -> Iterator[Finding]:
    known = current_allergies(case)
    none = [a for a in known if denies(a)]
    some = [a for a in known if not denies(a)]
    if none and some:
        text = Text("病历同时记有“无过敏”与具体过敏原", "Both no known allergies and a specific allergy are recorded")
        yield _finding("allergy-none-and-some", text, [*none, *some])


def _prescriptions(case: Case) -> Iterator[Finding]:
    """An active prescription of what the patient is allergic to, by code or name; no drug classes."""
    for allergy in current_allergies(case):
        if denies(allergy):
            continue
        for prescription in real(case.get("medications")):
            if drugs.same(allergy.get("code") or {}, drugs.concept(prescription)):
                text = Text("在用药物与过敏史中的物质同名", "An active prescription names a substance in the allergies")
                yield _finding("allergy-prescribed", text, [allergy, prescription])


def _diagnoses(case: Case) -> Iterator[Finding]:
    """The same diagnosis active and resolved (or refuted) at once."""
    active = {display(r.get("code")): r for r in real(case.get("problems")) if display(r.get("code"))}
    ended = [r for r in case.get("past") if r not in case.get("problems")]
    for resource in [*ended, *case.get("diagnoses")]:
        name = display(resource.get("code"))
        refuted = "refuted" in codes(resource.get("verificationStatus"))
        since = moment(resource.get("abatementDateTime"))
        other = active.get(name)
        if other is None or source_of(other) == source_of(resource):
            continue
        begun = moment(other.get("onsetDateTime")) or moment(other.get("recordedDate"))
        if refuted or (since and begun and begun < since and resource in ended):
            text = Text("同一诊断同时记为活动与已排除/已愈", "One diagnosis is both active and ended or refuted")
            yield _finding("diagnosis-active-and-ended", text, [other, resource])


def _dates(case: Case) -> Iterator[Finding]:
    start = moment((case.trigger.get("period") or {}).get("start"))
    born = moment((case.patient or {}).get("birthDate"))
    if start and start > case.now:
        text = Text("入院时间晚于当前时间", "The stay begins in the future")
        yield _finding("stay-in-future", text, [case.trigger])
    if start and born and start < born and case.patient:
        text = Text("入院时间早于出生日期", "The stay begins before the patient's birth")
        yield _finding("stay-before-birth", text, [case.trigger, case.patient])


def denies(allergy: Resource) -> bool:
    """Whether an AllergyIntolerance says that there is no allergy."""
    name = display(allergy.get("code"))
    return bool(codes(allergy.get("code")) & _NKA_CODES) or bool(NO_ALLERGY.search(name))


def _finding(code: str, text: Text, resources: Sequence[Resource]) -> Finding:
    return Finding(code, Severity.WARNING, text, cited(source_of(r) for r in resources), _SOURCE)
