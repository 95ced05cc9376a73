"""One patient's vital signs at one time, scored by NEWS2, in words and as findings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from plugins import news2, vital_signs
from plugins.fhir_text import NOT_RECORDED, Line, cited, instant
from plugins.news2 import CITATION, NAMES, UNITS, WORDS, Parameter, Score
from plugins.scenario import Finding, Locale, Resource, Severity, Text
from plugins.vital_signs import Reading

#: A measurement counts for as long as the report's widest interval between two rounds of them (chart 4: 12 hours).
CURRENT = timedelta(hours=12)

#: Responses that somebody is told of; the last one at once.
FLAGGED: Mapping[str, Severity] = {
    "news2-single-3": Severity.WARNING,
    "news2-5-6": Severity.WARNING,
    "news2-7-or-more": Severity.RED_FLAG,
}


@dataclass(frozen=True, slots=True)
class VitalSet:
    """The newest reading of each parameter, and their score.

    Attributes:
        readings: what was measured, usable or not.
        score: of those that are usable.
        goal: "Type/id" of the Goal that asks for SpO2 scale 2; empty for scale 1.
    """

    readings: Mapping[Parameter, Reading]
    score: Score
    goal: tuple[str, ...]

    @property
    def sources(self) -> tuple[str, ...]:
        """What the score rests on."""
        return cited([*(r.source for r in self.readings.values() if r.value is not None), *self.goal])

    @property
    def at(self) -> datetime:
        """When the newest of them was taken."""
        return max(reading.at for reading in self.readings.values())

    @property
    def total(self) -> Text:
        """For example "NEWS2 at least 5 (SpO2 scale 2)"."""
        least = Text("至少 ", "at least ") if self.score.missing else Text("", "")
        scale = Text("(血氧量表 2)", " (SpO2 scale 2)") if self.score.scale == 2 else Text("", "")
        amount = self.score.total
        return Text(f"NEWS2 {least.zh}{amount} 分{scale.zh}", f"NEWS2 {least.en}{amount}{scale.en}")

    @property
    def findings(self) -> list[Finding]:
        """The response that the score calls for, and what could not be scored."""
        response, total = self.score.response, self.total
        text = Text(f"{total.zh}。{response.text.zh}", f"{total.en}. {response.text.en}")
        severity = FLAGGED.get(response.code, Severity.INFO)
        scored = Finding(response.code, severity, text, self.sources, CITATION)
        missing = [NAMES[parameter] for parameter in self.score.missing]
        if not missing:
            return [scored]
        zh, en = "、".join(m.zh for m in missing), ", ".join(m.en for m in missing)
        text = Text(
            f"未评分(缺失或不可用): {zh};总分只是下限",
            f"Not scored (missing or not usable): {en}; the total is a minimum",
        )
        return [scored, Finding("news2-incomplete", Severity.INFO, text, self.sources, CITATION)]

    def lines(self, locale: Locale) -> list[Line]:
        """Each parameter with its value, its time and its points, or why it has none."""
        return [Line(self._line(p).in_(locale), self._source(p)) for p in news2.PARAMETERS]

    def _source(self, parameter: Parameter) -> tuple[str, ...]:
        reading = self.readings.get(parameter)
        return cited([reading.source]) if reading else ()

    def _line(self, parameter: Parameter) -> Text:
        name, reading = NAMES[parameter], self.readings.get(parameter)
        if reading is None:
            return Text(f"{name.zh}: 缺失", f"{name.en}: missing")
        at = instant(reading.at)[:16].replace("T", " ")
        if reading.value is None:
            why = reading.why or NOT_RECORDED
            return Text(f"{name.zh}: 不可用({why.zh},{at})", f"{name.en}: not usable ({why.en}, {at})")
        said, points = _said(parameter, reading), self.score.points[parameter]
        return Text(f"{name.zh}: {said.zh} → {points} 分({at})", f"{name.en}: {said.en}, scores {points} ({at})")


def vital_set(observations: Iterable[Resource], goals: Iterable[Resource], at: datetime) -> VitalSet | None:
    """The set at a time; None where nothing of it can be scored."""
    readings = vital_signs.newest(observations, at, CURRENT)
    scale, goal = vital_signs.prescribed_scale(goals)
    values = {parameter: reading.value for parameter, reading in readings.items() if reading.value is not None}
    return VitalSet(readings, news2.score(values, scale=scale), goal) if values else None


def _said(parameter: Parameter, reading: Reading) -> Text:
    if isinstance(reading.value, str):
        return WORDS[reading.value]
    written = reading.value or Decimal(0)
    shown = round(written, 1) if written % Decimal("0.1") else written  # as recorded, unless it was converted
    number = f"{shown} {UNITS[parameter]}"
    return Text(number, number)
