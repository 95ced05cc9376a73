"""Guard `support`: a statement most of whose words stand in no fact that it cites is shown as such.

Words are compared, not meanings: it flags and never cuts. A question, a short statement, and one whose facts are in
another language are left alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.reading import asks, has_han, plain, same_script
from plugins.hookspecs import hookimpl
from plugins.scenario import Text

#: Share of a statement's words without support beyond which it is flagged (a choice: see docs/guards.md).
MOST_UNSUPPORTED = 0.65
#: Words below which nothing can be told.
FEWEST_WORDS = 4

_STOP = frozenset({
    "the", "and", "for", "with", "that", "this", "from", "are", "was", "were", "has", "have", "had", "not", "but",
    "his", "her", "their", "they", "she", "its", "been", "will", "can", "may", "which", "who", "due", "also",
    "after", "before", "since", "when", "than", "then", "into", "over", "about", "patient", "patients", "reports",
    "reported", "recorded", "record", "history", "because", "there", "these", "those", "while",
})  # fmt: skip
_STOP_ZH = re.compile(
    "患者|病人|目前|本次|因此|由于|以及|并且|出现|可能|考虑|提示|显示|建议|进行|给予|存在|伴有|[的了和与及或在为有是就并也者等于其]"
)
_UNSUPPORTED = Text(
    zh="大部分内容在所引用的病历行中找不到对应文字,请核对",
    en="most of its words stand in none of the record lines it cites: verify",
)


class Support(Guard):
    """Words without support."""

    id: ClassVar[str] = "support"
    version: ClassVar[str] = "1.0.0"
    codes: ClassVar[frozenset[str]] = frozenset({"words-unsupported"})

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """FLAG for each statement that its facts hardly share a word with."""
        verdicts = []
        for n, statement in enumerate(answered.statements):
            facts = [fact.text for fact in answered.cited(statement)]
            if asks(statement.text) or not same_script(statement.text, facts):
                continue
            if unsupported(statement.text, facts) > MOST_UNSUPPORTED:
                verdicts.append(Verdict(Action.FLAG, "words-unsupported", _UNSUPPORTED, n))
        return verdicts


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [Support()]


def unsupported(text: str, facts: Iterable[str]) -> float:
    """Share (0 to 1) of a text's words, or pairs of characters, in no fact; 0 for one too short to tell."""
    said = _words(text)
    joined = frozenset(word for fact in facts for word in _words(fact))
    return sum(word not in joined for word in said) / len(said) if len(said) >= FEWEST_WORDS else 0.0


def _words(text: str) -> frozenset[str]:
    folded = plain(text)
    latin = {_stem(word) for word in re.findall(r"[a-z]{3,}", folded) if word not in _STOP}
    if not has_han(folded):
        return frozenset(latin)
    runs = re.findall(r"[\u4e00-\u9fff]{2,}", _STOP_ZH.sub(" ", folded))
    return frozenset(latin | {run[i : i + 2] for run in runs for i in range(len(run) - 1)})


def _stem(word: str) -> str:
    """English endings off, roughly: "admitted" and "admission" share "admi"."""
    return word[:4] if len(word) > 5 else word.removesuffix("s")
