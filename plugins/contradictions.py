"""Where a record contradicts itself, by rule: what a doctor must settle before the note is signed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from plugins.drafting import current_allergies
from plugins.fhir_text import cited, codes, display, moment, source_of
from plugins.record_lines import real
from plugins.scenario import Case, Finding, Resource, Severity, Text

_NKA_CODES = frozenset({"716186003", "409137002", "428607008", "no-known-allergies"})
_NKA_WORDS = re.compile(r"(?i)no known (?:\w+ )?allerg|无(?:已知|任何|药物|食物)*过敏|否认.{0,6}过敏")
_SOURCE = "病历书写基本规范 (卫医政发〔2010〕11号) 第三条: 客观、真实、准确; Joint Commission NPSG.03.06.01"

#: Words of an allergy's name that name no substance.
_NO_SUBSTANCE = frozenset({
    "allergy", "allergic", "allergen", "reaction", "intolerance", "substance", "product", "class", "finding",
    "disorder", "propensity", "adverse", "medication", "organism", "containing", "other", "unknown", "tablet",
    "capsule", "injection",
})  # fmt: skip


def contradictions(case: Case) -> list[Finding]:
    """Every contradiction between allergies, prescriptions, diagnoses and dates of one case."""
    return [*_allergies(case), *_prescriptions(case), *_diagnoses(case), *_dates(case)]


def _allergies(case: Case) -> Iterator[Finding]:
    known = current_allergies(case)
    none = [a for a in known if _denies(a)]
    some = [a for a in known if not _denies(a)]
    if none and some:
        text = Text("病历同时记有“无过敏”与具体过敏原", "Both no known allergies and a specific allergy are recorded")
        yield _finding("allergy-none-and-some", text, [*none, *some])


def _prescriptions(case: Case) -> Iterator[Finding]:
    """An active prescription that names what the patient is allergic to; names only, no drug classes."""
    for allergy in current_allergies(case):
        if _denies(allergy):
            continue
        for prescription in real(case.get("medications")):
            drug = display(prescription.get("medicationCodeableConcept") or prescription.get("medicationReference"))
            if _substances(display(allergy.get("code"))) & _substances(drug) or _within(allergy, drug):
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


def _denies(allergy: Resource) -> bool:
    name = display(allergy.get("code"))
    return bool(codes(allergy.get("code")) & _NKA_CODES) or bool(_NKA_WORDS.search(name))


def _substances(name: str) -> frozenset[str]:
    return frozenset(w for w in re.findall(r"[a-z]{5,}", name.lower()) if w not in _NO_SUBSTANCE)


def _within(allergy: Resource, drug: str) -> bool:
    """A Chinese substance name inside the drug's name (青霉素 in 注射用青霉素钠)."""
    name = re.sub(r"(?:药物)?过敏$|^对", "", display(allergy.get("code")))
    return bool(re.fullmatch(r"[\u4e00-\u9fff]{2,}", name)) and name in drug


def _finding(code: str, text: Text, resources: Sequence[Resource]) -> Finding:
    return Finding(code, Severity.WARNING, text, cited(source_of(r) for r in resources), _SOURCE)
