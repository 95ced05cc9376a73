"""What speaks against an order, by rule: allergy, duplicate, interaction, renal function, age, pregnancy.

Which medicines, limits and sources stands in `order_safety_rules.toml`, with what was left out.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Any

from plugins import drugs
from plugins.conditions import pregnancies
from plugins.contradictions import denies
from plugins.drafting import current_allergies
from plugins.fhir_text import Line, age_in_months, cited, display, source_of, who
from plugins.issues import Issue, issue
from plugins.quantities import bounds
from plugins.record_lines import allergy as allergy_line
from plugins.record_lines import condition, medication, observation, real
from plugins.scenario import Case, Resource, Severity, Text

#: LOINC codes of an estimated glomerular filtration rate per 1.73 m2 from creatinine (MDRD, CKD-EPI).
EGFR = ("33914-3", "48642-3", "48643-1", "62238-1", "77147-7", "88293-6", "98979-8")

_RECONCILED = "Joint Commission NPSG.03.06.01 EP 3 (duplications, contraindications, unclear information)"
_SEVERITIES = {"contraindicated": Severity.RED_FLAG, "caution": Severity.WARNING}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the table; what it asks for stands in the other attributes, each None where it does not.

    Attributes:
        code: stable id, unique.
        drug: what is ordered.
        allergen: what the patient is allergic to.
        partner: what is prescribed as well.
        egfr: not less than, below; mL/min/1.73 m2.
        no_egfr: there is none within a year.
        under: younger than so many years.
        older: this old or older, in years.
        pregnant: the patient is.
    """

    code: str
    severity: Severity
    text: Text
    citation: str
    drug: re.Pattern[str]
    allergen: re.Pattern[str] | None
    partner: re.Pattern[str] | None
    egfr: tuple[Decimal, Decimal] | None
    no_egfr: bool
    under: int | None
    older: int | None
    pregnant: bool


def issues(case: Case) -> list[Issue]:
    """Everything that speaks against the order that triggered the case.

    It reads the queries "allergies", "medications", "problems" and "renal". What the order is for cannot be read out of
    a reference alone: an order without a name is an issue of its own, since nothing was checked.
    """
    order = case.trigger
    name = drugs.names(drugs.concept(order))
    if not name:
        text = Text("医嘱未写明药名,未作任何核查", "The order names no medicine; nothing was checked")
        return [issue("order-unreadable", Severity.WARNING, text, [_order(case)], _RECONCILED)]
    known = list(_allergies(case))
    by_table = [
        issue(rule.code, rule.severity, rule.text, [_order(case), *places], rule.citation, kind)
        for rule in RULES
        for test in _TESTS
        for places, kind in test(rule, case, name)
    ]
    told = {each.finding.sources for each in known}  # the very substance says more than its class
    return [*known, *_duplicates(case), *(each for each in by_table if each.finding.sources not in told)]


def _allergies(case: Case) -> Iterator[Issue]:
    """The very substance, by code or name."""
    text = Text("医嘱药物即患者过敏的物质", "The order is for a substance that the patient is allergic to")
    ordered = drugs.concept(case.trigger)
    for known in current_allergies(case):
        if not denies(known) and drugs.same(known.get("code") or {}, ordered):
            places = [_order(case), _allergy(case, known)]
            yield issue("allergy-same-substance", Severity.RED_FLAG, text, places, _RECONCILED, "ALGY")


def _duplicates(case: Case) -> Iterator[Issue]:
    text = Text("另有含同一成分的在用医嘱", "Another active order holds the same ingredient")
    ordered = drugs.concept(case.trigger)
    for other in _others(case):
        if drugs.same(drugs.concept(other), ordered) or drugs.same(ordered, drugs.concept(other)):
            places = [_order(case), _prescribed(other)]
            yield issue("duplicate-ingredient", Severity.WARNING, text, places, _RECONCILED, "DUPTHPY")


_Found = Iterator[tuple[list[Line], str | None]]


def _class_allergy(rule: Rule, case: Case, name: str) -> _Found:
    if rule.allergen is None or not rule.drug.search(name):
        return
    for known in current_allergies(case):
        if not denies(known) and rule.allergen.search(drugs.names(known.get("code") or {})):
            yield [_allergy(case, known)], "ALGY"


def _interaction(rule: Rule, case: Case, name: str) -> _Found:
    """Either of the two may be the one that is ordered; a preparation of both is no interaction of two orders."""
    if rule.partner is None:
        return
    for other in _others(case):
        beside = drugs.names(drugs.concept(other))
        one_way = rule.drug.search(name) and _another(rule.partner, beside, name)
        other_way = rule.partner.search(name) and _another(rule.drug, beside, name)
        if one_way or other_way:
            yield [_prescribed(other)], "DRG"


def _renal(rule: Rule, case: Case, name: str) -> _Found:
    if not rule.drug.search(name) or (rule.egfr is None and not rule.no_egfr):
        return
    measured = next(iter(_egfr(case)), None)
    if measured is None:
        if rule.no_egfr:
            yield [], None
        return
    resource, low, high = measured
    if rule.egfr is not None and _below(low, high, *rule.egfr):
        yield [Line(observation(resource), cited([source_of(resource)]))], "LAB"


def _age(rule: Rule, case: Case, name: str) -> _Found:
    months = age_in_months(case.patient, case.now)
    if case.patient is None or months is None or not rule.drug.search(name):
        return
    young = rule.under is not None and months < rule.under * 12
    old = rule.older is not None and months >= rule.older * 12
    if young or old:
        yield [Line(who(case.patient, case.now, case.locale), cited([source_of(case.patient)]))], "AGE"


def _pregnancy(rule: Rule, case: Case, name: str) -> _Found:
    if rule.pregnant and rule.drug.search(name):
        for problem in pregnancies(case)[:1]:
            yield [Line(condition(problem, case.locale), cited([source_of(problem)]))], "COND"


_TESTS: Sequence[Callable[[Rule, Case, str], _Found]] = (_class_allergy, _interaction, _renal, _age, _pregnancy)


def _another(pattern: re.Pattern[str], beside: str, name: str) -> bool:
    """Whether `beside` holds a medicine of the group that is not simply the one ordered."""
    hits = {hit[0].lower() for hit in pattern.finditer(beside)}
    return bool(hits - {hit[0].lower() for hit in pattern.finditer(name)})


def _egfr(case: Case) -> Iterator[tuple[Resource, Decimal | None, Decimal | None]]:
    """The usable results, newest first, and between what bounds they lie."""
    for resource in real(case.get("renal")):
        low, high = bounds(resource)
        unit = str((resource.get("valueQuantity") or {}).get("code") or "")
        if unit.startswith("mL/min") and (low is not None or high is not None):
            yield resource, low, high


def _below(low: Decimal | None, high: Decimal | None, least: Decimal, below: Decimal) -> bool:
    """Whether a value between `low` and `high` is surely in [least, below)."""
    if high is None or (low is None and least > 0):
        return False
    return (high < below or (low is None and high <= below)) and (low is None or low >= least)


def _others(case: Case) -> list[Resource]:
    """The active prescriptions but for the order itself."""
    own = source_of(case.trigger)
    return [r for r in real(case.get("medications")) if source_of(r) != own]


def _order(case: Case) -> Line:
    said = medication(case.trigger) or display(drugs.concept(case.trigger)) or "-"
    return Line(said, cited([source_of(case.trigger)]))


def _prescribed(resource: Resource) -> Line:
    return Line(medication(resource) or display(drugs.concept(resource)), cited([source_of(resource)]))


def _allergy(case: Case, resource: Resource) -> Line:
    return Line(allergy_line(resource, case.locale), cited([source_of(resource)]))


def _read() -> tuple[Rule, ...]:
    table = tomllib.loads(files("plugins").joinpath("order_safety_rules.toml").read_text(encoding="utf-8"))
    groups = {name: re.compile("|".join(terms), re.IGNORECASE) for name, terms in table["groups"].items()}
    return tuple(_rule(row, groups) for row in table["rule"])


def _rule(row: Mapping[str, Any], groups: Mapping[str, re.Pattern[str]]) -> Rule:
    limited = "egfr_below" in row
    return Rule(
        code=row["code"],
        severity=_SEVERITIES[row["severity"]],
        text=Text(zh=row["zh"], en=row["en"]),
        citation=row["citation"],
        drug=groups[row["drug"]],
        allergen=groups[row["allergen"]] if "allergen" in row else None,
        partner=groups[row["with"]] if "with" in row else None,
        egfr=(Decimal(row.get("egfr_from", 0)), Decimal(row["egfr_below"])) if limited else None,
        no_egfr=row.get("no_egfr", False),
        under=row.get("under"),
        older=row.get("from"),
        pregnant=row.get("pregnant", False),
    )


RULES = _read()
