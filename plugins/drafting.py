"""What every draft has in common: the model's statements and the rules' findings as lines, and the honest labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from plugins.fhir_text import Line, cited, clean, codes, plain, source_of, tagless, who
from plugins.record_lines import allergy, condition, facts, lines, medication, real
from plugins.scenario import Case, Fact, Finding, Locale, Resource, Statement, Text

AI_DRAFT = Text(zh="AI 草稿,须经医务人员核实后方可采用", en="AI draft: to be verified by a clinician before use")

ALLERGIES = Text(zh="过敏史", en="Allergies")
PROBLEMS = Text(zh="在诊问题", en="Active problems")
MEDICATIONS = Text(zh="用药", en="Medications")


def stated(statements: Iterable[Statement]) -> list[Line]:
    """The model's statements as lines, each with what it rests on."""
    return [Line(clean(s.text), cited(s.sources)) for s in statements]


def found(findings: Iterable[Finding], locale: Locale) -> list[Line]:
    """The rules' findings as lines, each with its published source."""
    label = Text("依据", "source").in_(locale)
    return [Line(f"{f.text.in_(locale)} ({label}: {f.citation})", cited(f.sources)) for f in findings]


def notes(shown: Iterable[Line]) -> dict[str, Any]:
    """{"note": [...]} with one Annotation (markdown, so without tags) a line; {} where there are none."""
    listing = [{"text": tagless(plain(line))} for line in shown]
    return {"note": listing} if listing else {}


def all_sources(*groups: Iterable[Line]) -> tuple[str, ...]:
    """Every resource that the lines rest on, once, in order."""
    return cited(source for group in groups for line in group for source in line.sources)


def problem_lines(case: Case, limit: int = 8) -> list[Line]:
    """Active problems."""
    return lines(real(case.get("problems")), lambda r: condition(r, case.locale), limit, case.locale)


def medication_lines(case: Case, limit: int = 8) -> list[Line]:
    """Active prescriptions."""
    return lines(real(case.get("medications")), medication, limit, case.locale)


def allergy_lines(case: Case, limit: int = 8) -> list[Line]:
    """Allergies that the record does not call inactive or resolved."""
    return lines(current_allergies(case), lambda r: allergy(r, case.locale), limit, case.locale)


def current_allergies(case: Case) -> list[Resource]:
    """Allergies, but for those that are withdrawn, inactive or resolved."""
    over = frozenset({"inactive", "resolved"})
    return [r for r in real(case.get("allergies")) if not codes(r.get("clinicalStatus")) & over]


def person(case: Case) -> Fact:
    """Sex and age, as a fact."""
    return Fact(source_of(case.patient or case.trigger), who(case.patient, case.now, case.locale))


def background(case: Case, *, allergies: int, problems: int, medications: int) -> list[Fact]:
    """What nearly every question needs to know: at most so many allergies, problems and prescriptions, as facts."""
    return [
        *facts(ALLERGIES, allergy_lines(case, allergies), case.locale),
        *facts(PROBLEMS, problem_lines(case, problems), case.locale),
        *facts(MEDICATIONS, medication_lines(case, medications), case.locale),
    ]


def rule_facts(findings: Iterable[Finding], locale: Locale) -> list[Fact]:
    """What the rules found, as facts for a model that is to explain it; a finding that rests on nothing is none."""
    label = Text("规则", "rule").in_(locale)
    return [Fact(f.sources[0], f"{label}: {f.text.in_(locale)}") for f in findings if f.sources]


def trigger_source(case: Case) -> tuple[str, ...]:
    """The triggering resource as something to cite; empty where it has no id."""
    return cited([source_of(case.trigger)])


def truncated_note(case: Case, names: Sequence[str], locale: Locale) -> list[Line]:
    """A line that says so, where one of these queries had more than was read."""
    if not case.truncated & set(names):
        return []
    return [
        Line(Text("仅列出最近的记录,其余见病历", "only the most recent entries; the rest is in the record").in_(locale))
    ]
