"""Which examinations a case calls for by rule, and which would only repeat what is there (`examinations.toml`)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.resources import files
from typing import Any

from plugins.conditions import pregnancies
from plugins.fhir_text import cited, codes, display, listed, moment, source_of
from plugins.mentions import affirmed
from plugins.record_lines import real
from plugins.scenario import Case, Finding, Resource, Severity, Text

#: An acute condition calls for examinations when it is this new, or a reason for the present visit. House rule.
_ACUTE = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Exam:
    """One examination.

    Attributes:
        id: stable id, unique.
        name: for people.
        loinc: (code, LOINC name) of what is ordered.
        also: LOINC codes whose result serves as well.
        category: "laboratory", "imaging" or "procedure".
        x_ray: whether it uses X-rays.
        repeat: how long a result serves, where no rule says otherwise.
    """

    id: str
    name: Text
    loinc: tuple[str, str]
    also: frozenset[str]
    category: str
    x_ray: bool
    repeat: timedelta


@dataclass(frozen=True, slots=True)
class Rule:
    """What calls for examinations.

    Attributes:
        code: stable id, unique.
        when: names of conditions and reasons.
        icd10: prefixes of ICD-10 codes that count as well.
        acute: only for what is new; a problem of years is none.
        exams: ids of what it calls for.
        repeat: the source's own interval, or None.
        text: what is asked for.
        citation: the published source.
    """

    code: str
    when: re.Pattern[str]
    icd10: tuple[str, ...]
    acute: bool
    exams: tuple[str, ...]
    repeat: timedelta | None
    text: Text
    citation: str


@dataclass(frozen=True, slots=True)
class Called:
    """One examination that is called for, and by which findings."""

    exam: Exam
    findings: tuple[Finding, ...]


def findings(case: Case) -> list[Finding]:
    """A finding for each rule that calls for at least one examination that is not there yet."""
    called = called_for(case)
    return list(dict.fromkeys(finding for each in called for finding in each.findings))


def called_for(case: Case) -> list[Called]:
    """What the rules call for and nobody has done or ordered, in the table's order."""
    wanted: dict[str, list[Finding]] = {}
    for rule in RULES:
        met = _met(rule, case)
        if met:
            finding = Finding(rule.code, Severity.INFO, rule.text, cited(map(source_of, met)), rule.citation)
            for exam in rule.exams:
                if open_for(case, EXAMS[exam], rule.repeat):
                    wanted.setdefault(exam, []).append(finding)
    return [Called(exam, tuple(wanted[exam.id])) for exam in EXAMS.values() if exam.id in wanted]


def open_for(case: Case, exam: Exam, repeat: timedelta | None = None) -> bool:
    """Whether the examination may be proposed: no recent result, no open order, no X-rays in pregnancy.

    It reads the queries "results", "reports" and "orders". A result of the same moment counts as recent.
    """
    if exam.x_ray and pregnancies(case):
        return False
    since = case.now - max(exam.repeat if repeat is None else repeat, timedelta(hours=1))
    done = any(exam.also & codes(r.get("code")) and _recent(r, since) for r in _results(case))
    return not done and not any(exam.also & codes(r.get("code")) for r in real(case.get("orders")))


def _results(case: Case) -> Iterable[Resource]:
    return real([*case.get("results"), *case.get("reports")])


def _recent(result: Resource, since: datetime) -> bool:
    period = result.get("effectivePeriod") or {}
    stated = (result.get("effectiveDateTime"), period.get("end"), period.get("start"), result.get("issued"))
    at = next(filter(None, map(moment, stated)), None)
    return at is not None and at >= since


def _met(rule: Rule, case: Case) -> list[Resource]:
    """What calls for the rule's examinations: the trigger by its reasons or its name, and active problems."""
    found = [case.trigger] if any(_named(rule, concept) for concept in _reasons(case.trigger)) else []
    problems = [p for p in real(case.get("problems")) if source_of(p) != source_of(case.trigger)]
    found += [p for p in problems if _named(rule, p.get("code") or {}) and (not rule.acute or _new(p, case))]
    return found[:3]


def _reasons(trigger: Resource) -> list[Mapping[str, Any]]:
    if trigger.get("resourceType") == "Condition":
        return [trigger.get("code") or {}]
    return [r for name in ("reasonCode", "reasonReference") for r in listed(trigger, name) if isinstance(r, Mapping)]


def _named(rule: Rule, concept: Mapping[str, Any]) -> bool:
    return affirmed(display(concept), rule.when) or any(code.startswith(rule.icd10) for code in codes(concept))


def _new(problem: Resource, case: Case) -> bool:
    begun = moment(problem.get("onsetDateTime")) or moment(problem.get("recordedDate"))
    return begun is not None and begun >= case.now - _ACUTE


def _read() -> tuple[dict[str, Exam], tuple[Rule, ...]]:
    table = tomllib.loads(files("plugins").joinpath("examinations.toml").read_text(encoding="utf-8"))
    return {row["id"]: _exam(row) for row in table["exam"]}, tuple(_rule(row) for row in table["rule"])


def _exam(row: Mapping[str, Any]) -> Exam:
    return Exam(
        id=row["id"],
        name=Text(zh=row["zh"], en=row["en"]),
        loinc=(row["loinc"][0], row["loinc"][1]),
        also=frozenset(row["also"]),
        category=row["category"],
        x_ray=row.get("x_ray", False),
        repeat=timedelta(days=row["repeat_days"]),
    )


def _rule(row: Mapping[str, Any]) -> Rule:
    return Rule(
        code=row["code"],
        when=re.compile("|".join(row["when"]), re.IGNORECASE),
        icd10=tuple(row["icd10"]),
        acute=row.get("acute", False),
        exams=tuple(row["exams"]),
        repeat=timedelta(days=row["repeat_days"]) if "repeat_days" in row else None,
        text=Text(zh=row["zh"], en=row["en"]),
        citation=row["citation"],
    )


EXAMS, RULES = _read()
#: Every code whose result may make an examination needless.
RESULT_CODES: Sequence[str] = sorted({code for exam in EXAMS.values() for code in exam.also})
