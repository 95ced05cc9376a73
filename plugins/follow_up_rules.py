"""When a patient is followed up: deterministic rules with their sources, from `follow_up_rules.toml`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from plugins.fhir_text import cited, codes, display, source_of
from plugins.scenario import Finding, Resource, Severity, Text


@dataclass(frozen=True, slots=True)
class FollowUpRule:
    """One rule.

    Attributes:
        code: stable id, unique.
        after: encounter classes (v3-ActCode) that it is for; empty for any.
        when: what a diagnosis or problem must be called, or None for every patient.
        icd10: prefixes of ICD-10 codes that count as well as the name.
        days: due this many days after the end of the encounter.
        kind: "contact" by phone or message, or "visit".
        text: what is to be done.
        citation: the published source.
    """

    code: str
    after: frozenset[str]
    when: re.Pattern[str] | None
    icd10: tuple[str, ...]
    days: int
    kind: Literal["contact", "visit"]
    text: Text
    citation: str


@dataclass(frozen=True, slots=True)
class Step:
    """One follow-up that is due, and what it rests on ("Type/id")."""

    rule: FollowUpRule
    sources: tuple[str, ...]

    @property
    def finding(self) -> Finding:
        """The step as a finding, so that the rule and its source are on record."""
        return Finding(self.rule.code, Severity.INFO, self.rule.text, self.sources, self.rule.citation)


def steps(encounter: Resource, conditions: Iterable[Resource]) -> list[Step]:
    """What is due after `encounter`, soonest first.

    Args:
        encounter: the finished Encounter.
        conditions: its diagnoses and the patient's active problems.
    """
    kind = str((encounter.get("class") or {}).get("code") or "")
    known = list(conditions)
    due = []
    for rule in RULES:
        met = [source_of(c) for c in known if _names(rule, c)]
        if (not rule.after or kind in rule.after) and (rule.when is None or met):
            due.append(Step(rule, cited([*met[:3], source_of(encounter)])))
    return sorted(due, key=lambda step: step.rule.days)


def of(findings: Sequence[Finding]) -> list[Step]:
    """The steps that findings of `steps` stand for, in the same order."""
    return [Step(_BY_CODE[f.code], f.sources) for f in findings if f.code in _BY_CODE]


def _names(rule: FollowUpRule, condition: Resource) -> bool:
    code = condition.get("code")
    if rule.when is None:
        return False
    return bool(rule.when.search(display(code))) or any(c.startswith(rule.icd10) for c in codes(code))


def _read() -> tuple[FollowUpRule, ...]:
    table = tomllib.loads(files("plugins").joinpath("follow_up_rules.toml").read_text(encoding="utf-8"))
    return tuple(_rule(row) for row in table["rule"])


def _rule(row: Mapping[str, Any]) -> FollowUpRule:
    return FollowUpRule(
        code=row["code"],
        after=frozenset(row.get("after", ())),
        when=re.compile("|".join(row["when"]), re.IGNORECASE) if "when" in row else None,
        icd10=tuple(row.get("icd10", ())),
        days=row["days"],
        kind=row["kind"],
        text=Text(zh=row["zh"], en=row["en"]),
        citation=row["citation"],
    )


RULES = _read()
_BY_CODE = {rule.code: rule for rule in RULES}
