"""Guard `injection`: instructions to the model that stand in the record, and answers that hand them on.

The prompt fences the record and says that it is data; this guard looks at what got through. OWASP LLM01:2025 (prompt
injection, direct and indirect) names the kinds.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar

from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.reading import plain, together
from plugins.hookspecs import hookimpl
from plugins.scenario import Text

_MARKUP = re.compile(
    r"<\s*/?\s*[a-z!][^<>]{0,200}>|<\|[^|]{1,40}\||\|>|<<<|>>>|\[/?inst\]|</s>|javascript:|!\[[^\]]*\]\(|\]\(\s*\w+:|\$\{|\{\{|```|on\w+\s*=\s*[\"']"
)
_LINK = re.compile(r"\b(?:https?|ftp|data|file)\s?:\s?/{0,2}[^\s,。;)）]{3,}|\bwww\.[^\s,。;)）]{3,}")
_TEXTS = {
    "record-holds-instruction": Text(
        zh="病历行中有写给模型的指令,结果须特别核对",
        en="the record lines hold instructions to the model: verify with care",
    ),
    "statement-holds-instruction": Text(zh="陈述是写给模型的指令", en="an instruction to a model, not a statement"),
    "statement-holds-markup": Text(zh="陈述含标记代码,已作纯文本处理", en="holds markup, which is shown as plain text"),
    "link-unsupported": Text(zh="陈述含病历与知识库中没有的链接", en="a link that stands in none of what it cites"),
}


class Injection(Guard):
    """Attacks on the prompt."""

    id: ClassVar[str] = "injection"
    version: ClassVar[str] = "1.1.0"
    codes: ClassVar[frozenset[str]] = frozenset(_TEXTS)

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """FLAG the case whose facts hold orders; CUT statements that are orders or hold foreign links; FLAG markup."""
        verdicts = []
        if any(orders(text) for texts in answered.facts.values() for text in texts):
            verdicts.append(_verdict(Action.FLAG, "record-holds-instruction", None))
        for n, statement in enumerate(answered.statements):
            cited = plain(" ".join(fact.text for fact in answered.cited(statement)))
            if orders(statement.text):
                verdicts.append(_verdict(Action.CUT, "statement-holds-instruction", n))
            elif any(link not in cited for link in _LINK.findall(plain(statement.text))):
                verdicts.append(_verdict(Action.CUT, "link-unsupported", n))
            elif _MARKUP.search(plain(statement.text)):
                verdicts.append(_verdict(Action.FLAG, "statement-holds-markup", n))
        return verdicts


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [Injection()]


def orders(text: str) -> bool:
    """Whether a text tells a model what to do, disguises undone."""
    return any(pattern.search(form) for form in {plain(text), together(text)} for pattern in _orders())


@cache
def _orders() -> tuple[re.Pattern[str], ...]:
    data = tomllib.loads((Path(__file__).parent / "injection.toml").read_text(encoding="utf-8"))
    return tuple(re.compile(pattern) for kind in data["order"] for pattern in kind["patterns"])


def _verdict(action: Action, code: str, statement: int | None) -> Verdict:
    return Verdict(action, code, _TEXTS[code], statement)
