"""Guard `negation`: what the record denies is not claimed, and what it claims is not denied.

Terms that stand in a statement and in a fact that it cites are looked at in both: denied here and claimed there is a
flip. Scope after NegEx (Chapman et al., J Biomed Inform 2001;34:301-310), kept tight: in doubt nothing is denied,
since a flip takes a statement out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.reading import asks, plain
from plugins.hookspecs import hookimpl
from plugins.scenario import Text

_CLAUSE = re.compile(r"[。;;!?！？\n]|\.(?=\s|$)|\b(?:but|however|although|except)\b|但是|但|然而|不过")
_ANSWERED = re.compile(r"[?？]\s*[::]")
_ENDS = "of|for|to|in|with|from|on|at|by|due|because|since|after|before|that|is|are|was|were|and|or|nor|but"
_WORD = rf"(?!(?:{_ENDS})\b)[a-z][a-z'-]*"
_NO = (
    r"\b(?:denie[sd]|denying|no|not have|not having|not allergic to|without|negative for|absence of|absent|never had"
    r"|free of|n't have|rul(?:es?|ed|ing) out|exclud(?:es?|ed|ing))\s+"
)
_FILL = r"(?:(?:any|a|an|the|known|history of|evidence of|signs? of|symptoms? of|allergy to|allergic to|acute|new)\s+)*"
_MORE = rf"(?:(?:,\s?(?:or |and |nor )?|\s?(?:or|and|nor|/)\s)(?:{_WORD}\s?){{1,3}})*"
#: "no A", "no A B, C or D", "denies A and B", "without A", "negative for A"; a preposition ends what is denied.
_DENIED_EN = re.compile(rf"{_NO}{_FILL}((?:{_WORD}\s?){{1,3}}{_MORE})")
_NOT_DENYING = re.compile(
    r"\b(?:relief|improvement|change|longer|doubt|response|effect|treatment|therapy|medication)s?\b"
)
#: 有没有 asks; 无明显诱因 is "without a cause"; 无力 is a symptom: none of them denies what follows.
_NOT_NO = "明显诱因|诱因|法|力|缓解|好转|效|故|尿|汗|意识"
#: Denied up to the next comma, over a list with 、.
_DENIED_ZH = re.compile(
    rf"(?:否认有?|已?排除|未诉|未见|未出现|未发生|未发现|未闻及|未触及|不伴有?|(?<!有)没有|(?<!有)无(?!{_NOT_NO})|(?<![是能])不(?=[吸抽饮喝咳]|发[热烧]|恶心|呕吐|过敏))"
    r"(?:明显|任何|伴|出现|发生|已知|有)*([\u4e00-\u9fff]{1,12}(?:[、和及或与][\u4e00-\u9fff]{1,8})*)"
)
#: "chest pain: no", "发热:否", "胸痛(-)", "胸痛阴性", "embolism was ruled out".
_DENIED_AFTER = re.compile(
    r"([a-z][a-z ,'-]{2,60}|[\u4e00-\u9fff、]{2,20})[??]?\s*"
    r"(?:[::]\s*(?:no|none|denied|absent|negative|否认|否|无|没有|阴性)\s*(?:$|[,,。;;.])|\(\s*-\s*\)|阴性"
    r"|(?:was|were|is|are|has been|have been)?\s?(?:ruled out|excluded|not (?:seen|found|detected|present)))"
)
_STOP = frozenset({
    "patient", "patients", "history", "known", "recorded", "since", "with", "have", "been", "does", "that", "this",
    "from", "about", "reports", "report", "says", "sudden", "severe", "mild", "acute", "chronic", "today",
    "yesterday", "days", "weeks", "after", "before", "during", "other", "also", "still", "very", "some", "allergy",
    "allergies", "symptoms", "signs", "evidence", "what", "when", "your", "you", "the", "any", "new",
})  # fmt: skip
_STOP_ZH = frozenset({
    "患者", "病人", "出现", "发生", "明显", "已知", "任何", "目前", "现在", "近期", "病史", "既往", "时候", "症状",
    "体征", "情况", "记录", "药物", "本次", "入院", "就诊", "过敏",
})  # fmt: skip
_FLIP = {
    "claims-what-is-denied": Text(zh="病历否认的内容被写成有", en="claims what the record line denies"),
    "denies-what-is-recorded": Text(zh="病历记载的内容被写成无", en="denies what the record line states"),
}


class Negation(Guard):
    """Yes turned to no, and no to yes."""

    id: ClassVar[str] = "negation"
    version: ClassVar[str] = "1.0.0"
    codes: ClassVar[frozenset[str]] = frozenset(_FLIP)

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """CUT for each flip; a question claims nothing and is left alone."""
        verdicts = []
        for n, statement in enumerate(answered.statements):
            if asks(statement.text):
                continue
            code = _flip(statement.text, [fact.text for fact in answered.cited(statement)])
            if code:
                verdicts.append(Verdict(Action.CUT, code, _FLIP[code], n))
        return verdicts


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [Negation()]


def polarity(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """(claimed, denied) terms of a text: English words, and pairs of Chinese characters."""
    claimed: set[str] = set()
    denied: set[str] = set()
    for clause in _CLAUSE.split(_ANSWERED.sub(":", plain(text))):
        rest = clause
        for scope in _denied(clause):
            denied |= set(_terms(scope))
            rest = rest.replace(scope, " | ", 1)
        claimed |= set(_terms(rest))
    return frozenset(claimed), frozenset(denied - claimed)


def _flip(text: str, facts: Sequence[str]) -> str | None:
    claimed, denied = polarity(text)
    stated: set[str] = set()
    refused: set[str] = set()
    for fact in facts:
        fact_claimed, fact_denied = polarity(fact)
        stated |= fact_claimed
        refused |= fact_denied
    if claimed & (refused - stated):
        return "claims-what-is-denied"
    return "denies-what-is-recorded" if denied & (stated - refused) else None


def _denied(clause: str) -> Iterator[str]:
    for match in _DENIED_AFTER.finditer(clause):
        yield match[1]
    for match in _DENIED_EN.finditer(clause):
        if not _NOT_DENYING.search(match[1]):
            yield match[1]
    for match in _DENIED_ZH.finditer(clause):
        yield match[1]


def _terms(text: str) -> Iterator[str]:
    yield from (w for w in re.findall(r"[a-z]{4,}", text) if w not in _STOP)
    for run in re.findall(r"[\u4e00-\u9fff]{2,}", text):
        yield from (pair for pair in (run[i : i + 2] for i in range(len(run) - 1)) if pair not in _STOP_ZH)
