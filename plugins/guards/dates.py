"""Guard `dates`: every date of a statement stands in a fact that it cites, day and month not swapped.

Why beside `numbers`: 2026-01-03 and 2026-03-01 hold the same numbers, and "April" holds none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.dated import ago_in, days_in, happened
from plugins.guards.numbers import without_names
from plugins.hookspecs import hookimpl
from plugins.scenario import Text

_UNSUPPORTED = Text(zh="所引用的病历行中没有这个日期", en="a date that stands in none of the record lines it cites")
_OTHER_TIME = Text(
    zh="“几天前”与所引用病历行的日期不符", en='"days ago" does not fit the dates of the record lines it cites'
)


class Dates(Guard):
    """Dates, whole or in part, and times before now."""

    id: ClassVar[str] = "dates"
    version: ClassVar[str] = "1.0.0"
    codes: ClassVar[frozenset[str]] = frozenset({"date-unsupported", "time-ago-differs"})

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """CUT for a date without support; FLAG for "yesterday" where the cited lines name other days only."""
        verdicts = []
        for n, statement in enumerate(answered.statements):
            text = without_names(statement)
            facts = [fact.text for fact in answered.cited(statement)]
            known = [day for fact in facts for readings in days_in(fact) for day in readings]
            said = days_in(text)
            if any(not any(fact.holds(day) for day in readings for fact in known) for readings in said):
                verdicts.append(Verdict(Action.CUT, "date-unsupported", _UNSUPPORTED, n))
            elif known and any(not happened(ago, facts, answered.case.now) for ago in ago_in(text)):
                verdicts.append(Verdict(Action.FLAG, "time-ago-differs", _OTHER_TIME, n))
        return verdicts


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [Dates()]
