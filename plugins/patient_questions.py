"""Questions that a person must answer, found in a patient's message by rule (`patient_questions.toml`)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from plugins.scenario import Finding, Severity, Text


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of question.

    Attributes:
        code: stable id, unique.
        text: for staff.
        citation: the published source.
        asks: any of these in a message is that question.
    """

    code: str
    text: Text
    citation: str
    asks: re.Pattern[str]


def find(message: str, sources: Sequence[str]) -> list[Finding]:
    """What the message asks that no draft may answer.

    Args:
        message: in the patient's words.
        sources: "Type/id" that it stands in.
    """
    text = message.replace("’", "'")
    return [
        Finding(rule.code, Severity.WARNING, rule.text, tuple(sources), rule.citation)
        for rule in RULES
        if rule.asks.search(text)
    ]


def of(findings: Sequence[Finding]) -> list[Finding]:
    """Those of the findings that `find` made."""
    return [finding for finding in findings if finding.code in _CODES]


def _read() -> tuple[Rule, ...]:
    table = tomllib.loads(files("plugins").joinpath("patient_questions.toml").read_text(encoding="utf-8"))
    return tuple(
        Rule(row["code"], Text(row["zh"], row["en"]), row["citation"], re.compile("|".join(row["asks"]), re.IGNORECASE))
        for row in table["rule"]
    )


RULES = _read()
_CODES = frozenset(rule.code for rule in RULES)
