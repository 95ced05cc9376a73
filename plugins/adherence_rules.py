"""Whether a patient's medicines last, by rule: supply and days covered from dispenses, and what the patient says.

Proportion of days covered (PDC) as the Pharmacy Quality Alliance defines it: days with supply on hand, from the first
dispense to now, over the days in that time; a supply that overlaps the one before begins when that one ends. At least
two dispenses and 91 days; threshold 80 %. Which stops are dangerous, and what was left out, stands in
`adherence_rules.toml`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from importlib.resources import files
from typing import Any

from plugins import drugs
from plugins.fhir_text import cited, display, moment, source_of
from plugins.mentions import affirmed
from plugins.quantities import decimal
from plugins.record_lines import real, replies
from plugins.scenario import Case, Finding, Resource, Severity, Text

PQA = "Pharmacy Quality Alliance (PQA), Proportion of Days Covered: at least 2 fills and 91 days, threshold 80 %"
MISSED = "follow-up-missed"
_THRESHOLD, _LEAST_FILLS, _LEAST_DAYS = 80, 2, 91
#: More days than a supply can last is a wrong entry.
_MOST_SUPPLY = 366
_FOLLOW_UP = "urn:careloom:follow-up"
_UNDONE = frozenset({"requested", "received", "accepted", "ready", "in-progress", "on-hold"})


@dataclass(frozen=True, slots=True)
class Supply:
    """What the dispenses of one medicine add up to.

    Attributes:
        prescription: the active order, or the dispense itself where none is recorded.
        dispenses: newest first.
        until: first day that nothing is left for.
        days: from the first dispense to now.
        covered: of these, with supply on hand.
    """

    prescription: Resource
    dispenses: tuple[Resource, ...]
    until: date
    days: int
    covered: int

    @property
    def sources(self) -> tuple[str, ...]:
        """The order and its newest dispenses."""
        return cited(source_of(r) for r in (self.prescription, *self.dispenses[:3]))

    @property
    def percent(self) -> int | None:
        """PDC in whole percent, rounded down; None where there are too few fills or days for one."""
        fills = {_handed_over(d) for d in self.dispenses}
        enough = len(fills) >= _LEAST_FILLS and self.days >= _LEAST_DAYS
        return 100 * self.covered // self.days if enough else None


@dataclass(frozen=True, slots=True)
class _Rule:
    code: str
    text: Text
    citation: str
    pattern: re.Pattern[str]
    stops: bool = True


def findings(case: Case) -> list[Finding]:
    """Everything that speaks for a medicine not being taken, and a follow-up that was missed.

    It reads the trigger and the queries "dispenses" and "medications".
    """
    said = list(_says(case.trigger))
    stopped = any(rule.stops for rule in said)
    own = cited([source_of(case.trigger)])
    found = [Finding(rule.code, Severity.WARNING, rule.text, own, rule.citation) for rule in said]
    supplied = supplies(case)
    late = [supply for supply in supplied if supply.until <= case.now.date()]
    found += [finding for supply in supplied for finding in _of_supply(case, supply)]
    claimed = [(m, cited([source_of(m), *own])) for m in real(case.get("medications")) if stopped]
    found += _dangerous([*((s.prescription, s.sources) for s in late), *claimed])
    return [*found, *_missed(case)]


def supplies(case: Case) -> list[Supply]:
    """One for each medicine that is prescribed and was dispensed; only the trigger's where that is a dispense."""
    trigger = case.trigger
    handed = [trigger] if trigger.get("resourceType") == "MedicationDispense" else []
    everything = {source_of(d): d for d in (*handed, *real(case.get("dispenses"))) if _days(d) and _handed_over(d)}
    made = []
    for prescription in _once(real(case.get("medications"))):
        concept = drugs.concept(prescription)
        same = [d for d in everything.values() if drugs.same(concept, drugs.concept(d))]
        about = not handed or any(source_of(d) == source_of(trigger) for d in same)
        if same and about:
            made.append(_supply(prescription, same, case.now.date()))
    return made


def _supply(prescription: Resource, dispenses: Sequence[Resource], today: date) -> Supply:
    ordered = sorted(dispenses, key=lambda d: (_handed_over(d) or today, source_of(d)))
    first = until = _handed_over(ordered[0]) or today
    covered = 0
    for dispense in ordered:
        begins = max(_handed_over(dispense) or today, until)
        until = begins + timedelta(days=_days(dispense))
        covered += max((min(until, today) - min(begins, today)).days, 0)
    return Supply(prescription, tuple(reversed(ordered)), until, max((today - first).days, 0), covered)


def _of_supply(case: Case, supply: Supply) -> Iterator[Finding]:
    name = display(drugs.concept(supply.prescription), 60)
    over = (case.now.date() - supply.until).days
    if over >= 0:
        zh = f"{name}: 已发药量用至 {supply.until},此后 {over} 天无发药记录"
        en = f"{name}: supply lasted until {supply.until}; no dispense recorded for {over} days since"
        yield Finding("supply-overdue", Severity.WARNING, Text(zh, en), supply.sources, PQA)
    percent = supply.percent
    if percent is not None and percent < _THRESHOLD:
        zh = f"{name}: 覆盖天数比例 (PDC) {percent}%({supply.covered}/{supply.days} 天),低于 {_THRESHOLD}%"
        share = f"{supply.covered} of {supply.days} days"
        en = f"{name}: proportion of days covered {percent}% ({share}), below {_THRESHOLD}%"
        yield Finding("pdc-below-80", Severity.WARNING, Text(zh, en), supply.sources, PQA)


def _dangerous(medicines: Iterable[tuple[Resource, tuple[str, ...]]]) -> list[Finding]:
    """A red flag for each kind of medicine whose abrupt stop is dangerous."""
    found: dict[str, Finding] = {}
    for medicine, sources in medicines:
        name = drugs.names(drugs.concept(medicine))
        for rule in STOPS:
            if rule.pattern.search(name):
                known = found[rule.code].sources if rule.code in found else ()
                every = tuple(dict.fromkeys((*known, *sources)))
                found[rule.code] = Finding(rule.code, Severity.RED_FLAG, rule.text, every, rule.citation)
    return list(found.values())


def _says(trigger: Resource) -> Iterator[_Rule]:
    if trigger.get("resourceType") != "QuestionnaireResponse":
        return
    claims = "\n".join(reply.asserts for reply in replies(trigger)).replace("’", "'")
    yield from (rule for rule in SAYS if affirmed(claims, rule.pattern))


def _missed(case: Case) -> Iterator[Finding]:
    """A follow-up Task that failed, or whose time is over while it is still to be done."""
    task = case.trigger
    if task.get("resourceType") != "Task":
        return
    end = moment(((task.get("restriction") or {}).get("period") or {}).get("end"))
    failed = task.get("status") == "failed"
    if failed or (task.get("status") in _UNDONE and end is not None and end < case.now):
        text = Text("计划的随访未完成", "A follow-up that was planned has not taken place")
        source = "CMS Transitional Care Management (MLN908628): contact and visit within the stated days of discharge"
        yield Finding(MISSED, Severity.WARNING, text, cited([source_of(task)]), source)


def _handed_over(dispense: Resource) -> date | None:
    at = moment(dispense.get("whenHandedOver")) or moment(dispense.get("whenPrepared"))
    return at.date() if at else None


def _days(dispense: Resource) -> int:
    """`daysSupply` in whole days; 0 where it is missing, in another unit, or not plausible."""
    supply = dispense.get("daysSupply")
    number = decimal(supply.get("value")) if isinstance(supply, Mapping) else None
    if number is None or not isinstance(supply, Mapping) or not 1 <= number <= _MOST_SUPPLY:
        return 0
    unit = str(supply.get("code") or supply.get("unit") or "")
    return int(number) if unit.lower() in ("d", "day", "days", "天", "日") else 0


def _once(prescriptions: Iterable[Resource]) -> list[Resource]:
    """The newest of each medicine (they come newest first)."""
    kept: list[Resource] = []
    for each in prescriptions:
        if not any(drugs.same(drugs.concept(other), drugs.concept(each)) for other in kept):
            kept.append(each)
    return kept


def _rule(row: Mapping[str, Any], patterns: str) -> _Rule:
    pattern = re.compile("|".join(row[patterns]), re.IGNORECASE)
    return _Rule(row["code"], Text(row["zh"], row["en"]), row["citation"], pattern, row.get("stops", True))


_TABLE = tomllib.loads(files("plugins").joinpath("adherence_rules.toml").read_text(encoding="utf-8"))
STOPS = tuple(_rule(row, "drug") for row in _TABLE["stop"])
SAYS = tuple(_rule(row, "patient") for row in _TABLE["says"])
