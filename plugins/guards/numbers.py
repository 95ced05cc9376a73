"""Guard `numbers`: every number of a statement stands in a fact that it cites, with the same unit and the same bound.

An equal amount in another unit of the same kind is the same number (500 mg and 0.5 g, 24 hours and 1 day); a span
of time before now is one where a cited date lies that long back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.dated import ago_in, happened
from plugins.guards.quantities import Quantity, quantities
from plugins.guards.reading import plain
from plugins.hookspecs import hookimpl
from plugins.scenario import Statement, Text

_PAIR = re.compile(r"(?<![\d/.])(\d{1,3}(?:\.\d+)?)\s?/\s?(\d{1,3}(?:\.\d+)?)(?![\d/])")
#: How often something is done; of what says so in both a statement and its facts, the statement's must be the facts'.
_PERIODS = {
    "day": re.compile(
        r"\b(?:daily|(?:a|per|every|each) day|[bt]id|qid|qd|od|nightly|at night)\b|[每一]日|[每一]天|每晚|睡前"
    ),
    "week": re.compile(r"\b(?:weekly|(?:a|per|every|each) week)\b|每周|每星期|一周一次"),
    "month": re.compile(r"\b(?:monthly|(?:a|per|every|each) month)\b|每月|每个月"),
}
_TEXTS = {
    "number-unsupported": Text(
        zh="所引用的病历行中没有这个数字", en="a number that stands in none of the record lines it cites"
    ),
    "unit-mismatch": Text(zh="数字与病历一致,但单位不同", en="a number of the record with another unit"),
    "bound-mismatch": Text(
        zh="“大于/小于”与病历相反", en='"more than" where the record has "less than", or the reverse'
    ),
    "period-mismatch": Text(
        zh="用药间隔与病历不同(如每周写成每日)", en="another interval than the record's (daily where it says weekly)"
    ),
    "pair-reversed": Text(
        zh="成对数值(如血压)前后颠倒", en="a pair of values (such as a blood pressure) the wrong way round"
    ),
}


class Numbers(Guard):
    """Numbers with units and bounds."""

    id: ClassVar[str] = "numbers"
    version: ClassVar[str] = "1.0.0"
    codes: ClassVar[frozenset[str]] = frozenset(_TEXTS)

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """CUT for each statement with a number that its facts do not bear."""
        found = ((n, self._fault(answered, statement)) for n, statement in enumerate(answered.statements))
        return [Verdict(Action.CUT, code, _TEXTS[code], n) for n, code in found if code]

    def _fault(self, answered: Answered, statement: Statement) -> str | None:
        text = without_names(statement)
        facts = [fact.text for fact in answered.cited(statement)]
        known = [quantity for fact in facts for quantity in quantities(fact)]
        spans = {ago.count for ago in ago_in(text) if happened(ago, facts, answered.case.now)}
        for said in quantities(text):
            if said.counted and said.value not in spans and (fault := _wrong(said, known)):
                return fault
        if _other_period(text, facts):
            return "period-mismatch"
        return "pair-reversed" if any(_reversed(text, facts)) else None


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [Numbers()]


def without_names(statement: Statement) -> str:
    """A statement's text without the resources that it cites by name: their ids hold no measured number."""
    text = statement.text
    for source in statement.sources:
        text = text.replace(source, " ")
    return text


def _wrong(said: Quantity, known: Sequence[Quantity]) -> str | None:
    if said.word and said.value == 1:  # "one day", "一次": how "a day" is written out
        return None
    bearing = [fact for fact in known if _bears(fact, said)]
    if bearing:
        against = {">": "<", "<": ">"}.get(said.bound)
        return "bound-mismatch" if against and all(fact.bound == against for fact in bearing) else None
    return "unit-mismatch" if any(fact.value == said.value for fact in known) else "number-unsupported"


def _bears(fact: Quantity, said: Quantity) -> bool:
    if fact.base and said.base:
        return fact.base == said.base
    return fact.value == said.value


def _other_period(text: str, facts: Iterable[str]) -> bool:
    said, known = _periods(text), _periods(" ".join(facts))
    return bool(said and known and not said & known)


def _periods(text: str) -> frozenset[str]:
    folded = plain(text)
    return frozenset(name for name, pattern in _PERIODS.items() if pattern.search(folded))


def _reversed(text: str, facts: Iterable[str]) -> Iterator[bool]:
    shown = [pair for fact in facts for pair in _PAIR.findall(plain(fact))]
    for first, second in _PAIR.findall(plain(text)):
        yield first != second and (second, first) in shown and (first, second) not in shown
