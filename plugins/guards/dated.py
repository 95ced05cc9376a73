"""Dates read out of a text: "2026-03-01", "3月1日", "1 March 2026", "3天前", "two weeks ago", "yesterday"."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from plugins.guards.reading import plain

_MONTHS = {
    "january": 1, "jan": 1, "february": 2, "feb": 2, "march": 3, "mar": 3, "april": 4, "apr": 4, "may": 5, "june": 6,
    "jun": 6, "july": 7, "jul": 7, "august": 8, "aug": 8, "september": 9, "sept": 9, "sep": 9, "october": 10,
    "oct": 10, "november": 11, "nov": 11, "december": 12, "dec": 12,
}  # fmt: skip
_MONTH = rf"(?P<name>{'|'.join(sorted(_MONTHS, key=len, reverse=True))})\.?"
_YEAR = r"(?P<y>(?:19|20)\d{2})"
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        rf"(?<!\d){_YEAR}\s?[-/.年]\s?(?P<m>\d{{1,2}})(?:\s?[-/.月]\s?(?P<d>\d{{1,2}})(?!\d)\s?[日号]?|月|(?=[^\d./-]|$))",
        r"(?<!\d)(?<!\d年)(?P<m>\d{1,2})月(?P<d>\d{1,2})[日号]",
        rf"(?<!\w)(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}(?!\w)(?:,?\s{_YEAR})?",
        rf"(?<!\w){_MONTH}\s(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?!\d)(?:,?\s{_YEAR})?",
        rf"(?<!\w)(?<!\d\s){_MONTH},?\s{_YEAR}",
    )
)
_EITHER = re.compile(rf"(?<![\d/])(?P<a>\d{{1,2}})/(?P<b>\d{{1,2}})/{_YEAR}(?!\d)")
_DAYS = {
    "天": 1, "日": 1, "day": 1, "周": 7, "星期": 7, "week": 7, "个月": 30, "月": 30, "month": 30, "年": 365,
    "year": 365,
}  # fmt: skip
_COUNTS = {
    "一": 1, "两": 2, "二": 2, "三": 3, "四": 4, "五": 5, "六": 6, "七": 7, "八": 8, "九": 9, "十": 10, "a": 1,
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10,
}  # fmt: skip
_COUNT = r"(?P<n>\d{1,3}|[一两二三四五六七八九十]|\b(?:a|one|two|three|four|five|six|seven|eight|nine|ten)\b)"
_SPANNED = rf"{_COUNT}\s?(?P<unit>天|日|周|星期|个月|月|年|days?|weeks?|months?|years?)"
_SPAN = re.compile(_SPANNED)
_AGO = re.compile(rf"{_SPANNED}\s?(?:之?前|ago|earlier|before)")
_NAMED = {
    "今天": 0, "今日": 0, "今晨": 0, "昨天": 1, "昨日": 1, "昨晚": 1, "前天": 2, "today": 0, "yesterday": 1,
    "last night": 1,
}  # fmt: skip
_NAMED_RE = re.compile("|".join(re.escape(word) for word in _NAMED))


@dataclass(frozen=True, slots=True)
class Day:
    """A date of which parts may be missing (None)."""

    year: int | None
    month: int
    day: int | None

    def holds(self, other: Day) -> bool:
        """Whether everything that `other` says, this says too."""
        return (
            other.month == self.month
            and (other.year is None or other.year == self.year)
            and (other.day is None or other.day == self.day)
        )


@dataclass(frozen=True, slots=True)
class Ago:
    """A time before now.

    Attributes:
        days: how long ago.
        slack: days by which a real date may differ from it and still be meant.
        count: the number that the text used; None for "yesterday" and its like.
        said: the words, to look for elsewhere.
    """

    days: int
    slack: int
    count: int | None
    said: str


def days_in(text: str) -> list[tuple[Day, ...]]:
    """The dates of a text; more than one reading where it is ambiguous (03/04/2026)."""
    folded = plain(text)
    found: list[tuple[Day, ...]] = []
    for match in _EITHER.finditer(folded):
        year, a, b = int(match["y"]), int(match["a"]), int(match["b"])
        found.append(tuple(Day(year, m, d) for m, d in dict.fromkeys([(a, b), (b, a)]) if 1 <= m <= 12))
    rest = _EITHER.sub(" ", folded)
    for pattern in _DATES:
        found += [(day,) for match in pattern.finditer(rest) if (day := _day(match.groupdict()))]
        rest = pattern.sub(" ", rest)
    return [readings for readings in found if readings]


def ago_in(text: str) -> Iterator[Ago]:
    """What a text says of how long ago something was."""
    folded = plain(text)
    for match in _AGO.finditer(folded):
        unit = _DAYS[match["unit"].rstrip("s")]
        yield Ago(_length(match), max(1, unit // 2), _length(match) // unit, match[0])
    for match in _NAMED_RE.finditer(folded):
        yield Ago(_NAMED[match[0]], 1, None, match[0])


def happened(ago: Ago, texts: Iterable[str], now: datetime) -> bool:
    """Whether one of the texts holds a date that long before `now`, or a span as long ("cough for 3 days")."""
    wanted = (now - timedelta(days=ago.days)).date()
    for text in texts:
        folded = plain(text)
        spans = (_length(match) for match in _SPAN.finditer(folded))
        if ago.said in folded or (ago.days and ago.days in spans):
            return True
        for day in (d for readings in days_in(text) for d in readings):
            real = _real(day)
            if real is not None and abs((real - wanted).days) <= ago.slack:
                return True
    return False


def _length(match: re.Match[str]) -> int:
    """Days that a count and its unit make."""
    count = _COUNTS.get(match["n"]) or int(match["n"])
    return count * _DAYS[match["unit"].rstrip("s")]


def _real(day: Day) -> date | None:
    if day.year is None or day.day is None:
        return None
    try:
        return date(day.year, day.month, day.day)
    except ValueError:
        return None


def _day(parts: dict[str, str | None]) -> Day | None:
    month = _MONTHS[name] if (name := parts.get("name")) else int(parts.get("m") or 0)
    day = int(parts.get("d") or 0) or None
    year = int(parts.get("y") or 0) or None
    return Day(year, month, day) if 1 <= month <= 12 and (day is None or 1 <= day <= 31) else None
