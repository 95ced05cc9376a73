"""Red flags in what a patient reports: rules with published sources that hold with the model switched off.

The rules themselves stand in `red_flags.toml`, so that a clinician can read and review them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from plugins.mentions import affirmed
from plugins.scenario import Finding, Severity, Text

Level = Literal["1", "2", "3", "4"]
"""Triage level of the Chinese consensus: 1 at once, 2 in 10 minutes, 3 in 30, 4 in 60 or later."""


@dataclass(frozen=True, slots=True)
class RedFlag:
    """One rule.

    Attributes:
        code: stable id, unique.
        level: the least urgent level that it allows.
        text: what the clinician reads.
        citation: the published source.
        needs: all of these patterns must be claimed.
        below_months: the rule is for patients known to be younger than this; None for everybody.
    """

    code: str
    level: Level
    text: Text
    citation: str
    needs: tuple[re.Pattern[str], ...]
    below_months: int | None = None


def find(claims: Sequence[str], sources: Sequence[str], months: int | None) -> list[Finding]:
    """The red flags in what somebody claims.

    Args:
        claims: sentences or answers, in the person's words.
        sources: "Type/id" that they stand in.
        months: age in completed months; None where unknown.
    """
    text = "\n".join(claims).replace("’", "'")
    return [
        Finding(flag.code, Severity.RED_FLAG, flag.text, tuple(sources), flag.citation)
        for flag in RED_FLAGS
        if _applies(flag, months) and all(affirmed(text, need) for need in flag.needs)
    ]


def level(findings: Sequence[Finding]) -> Level | None:
    """The most urgent level that the red flags among `findings` demand; None without any."""
    return min((_LEVELS[finding.code] for finding in findings if finding.code in _LEVELS), default=None)


def _applies(flag: RedFlag, months: int | None) -> bool:
    return flag.below_months is None or (months is not None and months < flag.below_months)


def _read() -> tuple[RedFlag, ...]:
    table = tomllib.loads(files("plugins").joinpath("red_flags.toml").read_text(encoding="utf-8"))
    return tuple(_flag(row, table["terms"]) for row in table["flag"])


def _flag(row: Mapping[str, Any], terms: Mapping[str, Sequence[str]]) -> RedFlag:
    return RedFlag(
        code=row["code"],
        level=row["level"],
        text=Text(zh=row["zh"], en=row["en"]),
        citation=row["citation"],
        needs=tuple(_pattern(need, terms) for need in row["needs"]),
        below_months=row.get("below_months"),
    )


def _pattern(need: Sequence[str], terms: Mapping[str, Sequence[str]]) -> re.Pattern[str]:
    alternatives = [term for entry in need for term in (terms[entry[1:]] if entry.startswith("@") else [entry])]
    return re.compile("|".join(alternatives), re.IGNORECASE)


RED_FLAGS = _read()
_LEVELS = {flag.code: flag.level for flag in RED_FLAGS}
