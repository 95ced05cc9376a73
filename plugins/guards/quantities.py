"""Numbers and what they count, read out of a text: "0.5 g", "500mg", "1,000 mL", "两片", "three days", "<5 mmol/L"."""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from pathlib import Path

from plugins.guards.reading import without_exponents

#: One or two digits behind a letter are part of a word: "SpO2", "HbA1c", "B12", "ICD-10" hold no measured number.
_WRITTEN = r"(?:(?<![A-Za-z0-9.])(?<![A-Z][A-Z]-)\d+(?:[.,]\d+)*|(?<=[A-Za-z])\d{3,}(?:[.,]\d+)*)"
_NUMBER = re.compile(_WRITTEN)
_PRECISION = Context(prec=9)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def _units() -> dict[str, tuple[str, Decimal]]:
    """Unit as written -> (what it measures, factor), from `units.toml`."""
    data = tomllib.loads((Path(__file__).parent / "units.toml").read_text(encoding="utf-8"))
    return {
        written: (dimension, Decimal(factor))
        for dimension, listing in data.items()
        for factor, names in listing.items()
        for written in names
    }


_UNITS = _units()
_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
#: A Latin unit ends where its word ends and is no part of a longer one ("mg/dL" is not "mg"); a Chinese one just ends.
_UNIT_AFTER = re.compile(rf"\s?-?\s?({_UNIT})(?![a-z%]|/[a-z])", re.IGNORECASE)
_COUNTED = (
    "毫克|微克|千克|公斤|克|毫升|升|小时|分钟|星期|个月|周岁|岁|天|日|周|月|年|片|粒|次|支|袋|滴|度|单位|厘米|毫米"
)
_CHINESE = re.compile(rf"([〇零一二两三四五六七八九十百]+)(?=\s?(?:个)?(?:{_COUNTED}))")
_DIGITS = {c: n for n, c in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_SMALL = {
    "zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "ten": 10, "eleven": 11, "twelve": 12, "dozen": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
    "seventy": 70, "eighty": 80, "ninety": 90, "once": 1, "twice": 2, "thrice": 3, "bid": 2, "tid": 3, "qid": 4,
}  # fmt: skip
_OFTEN = frozenset({"twice", "thrice", "bid", "tid", "qid", "dozen"})
_ENGLISH = re.compile(rf"\b({'|'.join(sorted(_SMALL, key=len, reverse=True))})\b", re.IGNORECASE)
_MORE = re.compile(
    r"(?:[>≥]=?|大于|超过|高于|多于|(?:more|greater|higher) than|above|over|at least|至少|不低于)\s*$", re.I
)
_LESS = re.compile(
    r"(?:[<≤]=?|小于|低于|少于|不足|不超过|(?:less|lower|fewer) than|below|under|at most|至多)\s*$", re.I
)


@dataclass(frozen=True, slots=True)
class Quantity:
    """One number of a text.

    Attributes:
        value: the number.
        unit: as written, in lower case; "" where none follows.
        bound: ">" or "<" where the text gives a bound, else "".
        word: whether it was written in words ("两", "three").
        at: place in the normalised text.
        written: the word itself, where it is one.
    """

    value: Decimal
    unit: str
    bound: str
    word: bool
    at: int
    written: str = ""

    @property
    def counted(self) -> bool:
        """Whether it counts something: a number word alone ("one of them") need not."""
        return not self.word or bool(self.unit) or self.frequency

    @property
    def frequency(self) -> bool:
        """Whether it says how often: "twice", "tid"."""
        return self.word and self.written in _OFTEN

    @property
    def base(self) -> tuple[str, Decimal] | None:
        """(dimension, value in the dimension's first unit); None without a unit."""
        if self.unit not in _UNITS:
            return None
        dimension, factor = _UNITS[self.unit]
        return dimension, _PRECISION.create_decimal(self.value * factor).normalize()


def numbers(text: str) -> frozenset[Decimal]:
    """The numbers in a text that are written in digits: 7.20 is 7.2, 1,000 is 1000, full-width digits are digits."""
    return frozenset(number for written in _NUMBER.findall(_folded(text)) for number in _values(written))


def quantities(text: str) -> list[Quantity]:
    """The numbers of a text in digits and in words, with the units that follow them."""
    folded = _folded(text)
    return sorted([*_in_digits(folded), *_in_words(folded)], key=lambda q: q.at)


def _folded(text: str) -> str:
    kept = "".join(c for c in text if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFKC", without_exponents(kept)).replace("°c", "℃").replace("°C", "℃")


def _in_digits(folded: str) -> Iterator[Quantity]:
    for match in _NUMBER.finditer(folded):
        unit = _UNIT_AFTER.match(folded, match.end())
        values = _values(match[0])
        for n, value in enumerate(values):
            last = n == len(values) - 1
            yield Quantity(value, _unit(unit) if last else "", _bound(folded[: match.start()]), False, match.start())


def _in_words(folded: str) -> Iterator[Quantity]:
    for match in _CHINESE.finditer(folded):
        value = _chinese(match[1])
        if value is not None:
            yield Quantity(Decimal(value), _unit(_UNIT_AFTER.match(folded, match.end())), "", True, match.start())
    for match in _ENGLISH.finditer(folded):
        unit = _UNIT_AFTER.match(folded, match.end())
        yield Quantity(Decimal(_SMALL[match[1].lower()]), _unit(unit), "", True, match.start(), match[1].lower())


def _unit(match: re.Match[str] | None) -> str:
    return match[1].lower() if match else ""


def _bound(before: str) -> str:
    if _LESS.search(before):
        return "<"
    return ">" if _MORE.search(before) else ""


def _values(written: str) -> tuple[Decimal, ...]:
    """ "1,000" is one number; "3,4" may be two, or a decimal comma: all readings must have support, so it is two."""
    if _THOUSANDS.fullmatch(written):
        return (Decimal(written.replace(",", "")),)
    parts = [part for piece in written.split(",") for part in ([piece] if piece.count(".") <= 1 else piece.split("."))]
    return tuple(Decimal(part) for part in parts)


def _chinese(written: str) -> int | None:
    """一 to 九百九十九; None for what is no number ("一一", "十百")."""
    if re.fullmatch("[〇零一二两三四五六七八九]", written):
        return _DIGITS[written]
    match = re.fullmatch(
        "(?:([一二两三四五六七八九])百)?零?(?:([一二三四五六七八九])?(十))?([一二三四五六七八九])?", written
    )
    if not match or not written:
        return None
    hundreds, tens, ten, ones = match.groups()
    return (
        100 * _DIGITS.get(hundreds or "零", 0)
        + (10 * _DIGITS.get(tens or "一", 1) if ten else 0)
        + _DIGITS.get(ones or "零", 0)
    )
