"""Guard `unsafe-advice`: advice that no draft may give by itself; `unsafe_advice.toml` lists it, each with its source.

Advice is cut, and a warning against it is not ("do not stop taking"). Where a cited line of the record gives the same
advice it is the hospital's own plan, and flagged; a patient's own words are no such line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.reading import asks, plain
from plugins.hookspecs import hookimpl
from plugins.scenario import Fact, Text

_SENTENCE = re.compile(r"[。;;!！\n]|\.(?=\s|$)")
#: In front of what is advised against: "不要", "do not", "never".
_WARNS = re.compile(
    r"(?:请勿|切勿|不要|不可以?|不能|不得|不应该?|避免|禁止|严禁|切忌|不建议|不宜|千万别)[^,,]{0,6}$"
    r"|\b(?:do not|don.t|never|not|avoid|without|before you)\s*$"
)
#: Beside it: "... 前请咨询医生", "... unless your doctor says so".
_ASK_FIRST = re.compile(
    r"(?:之?前|请).{0,6}(?:咨询|询问|联系|告知).{0,6}(?:医生|医师|药师|护士)|(?:医生|医师|药师)(?:同意|指导|建议|评估)|遵医嘱"
    r"|\b(?:unless|until|only if|if|after|when) your (?:doctor|pharmacist|nurse|gp)"
    r"|\b(?:ask|talk to|speak (?:to|with)|check with|consult) (?:your|a|the) (?:doctor|pharmacist|nurse|gp)"
)
#: Resource types that hold what a patient says, which is nobody's plan.
_OWN_WORDS = ("QuestionnaireResponse/", "Communication/", "Appointment/")


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of advice.

    Attributes:
        code: metric label.
        text: for the reader of the draft.
        citation: the published source.
        advises: any of these in a sentence is that advice.
    """

    code: str
    text: Text
    citation: str
    advises: re.Pattern[str]


@cache
def rules() -> tuple[Rule, ...]:
    """The list, compiled."""
    data = tomllib.loads((Path(__file__).parent / "unsafe_advice.toml").read_text(encoding="utf-8"))
    return tuple(
        Rule(
            r["code"],
            Text(zh=r["zh"], en=r["en"]),
            r["citation"],
            re.compile("|".join(f"(?:{p})" for p in r["advises"])),
        )
        for r in data["rule"]
    )


class UnsafeAdvice(Guard):
    """Advice never to be given."""

    id: ClassVar[str] = "unsafe-advice"
    version: ClassVar[str] = "1.0.0"
    codes: ClassVar[frozenset[str]] = frozenset(rule.code for rule in rules())

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """CUT for advice of the list; FLAG where a cited line of the hospital's gives the same."""
        verdicts = []
        for n, statement in enumerate(answered.statements):
            if asks(statement.text):
                continue
            for rule in rules():
                if advises(statement.text, rule):
                    planned = any(_is_plan(fact) and advises(fact.text, rule) for fact in answered.cited(statement))
                    verdicts.append(Verdict(Action.FLAG if planned else Action.CUT, rule.code, rule.text, n))
                    break
        return verdicts


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [UnsafeAdvice()]


def advises(text: str, rule: Rule) -> bool:
    """Whether a text gives the advice, and does not warn against it or send the patient to ask first."""
    for sentence in _SENTENCE.split(plain(text)):
        sentence = sentence.strip()
        for match in rule.advises.finditer(sentence):
            if not _WARNS.search(sentence[: match.start()]) and not _ASK_FIRST.search(sentence):
                return True
    return False


def _is_plan(fact: Fact) -> bool:
    return not fact.source.startswith(_OWN_WORDS)
