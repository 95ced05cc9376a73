"""Guard `status`: how sure, when, and whose: what the record suspects, has behind it, or says of a relative stays that.

Words of certainty, of time and of kin are compared between a statement and the lines that it cites. A line can be about
several things, so a difference is flagged and never cut. Kinds after ConText (Harkema et al., J Biomed Inform
2009;42:839-851): certainty, temporality, experiencer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.reading import asks, plain
from plugins.hookspecs import hookimpl
from plugins.scenario import Fact, Text

_SUSPECTED = re.compile(
    r"\b(?:suspected|suspect|possibl[ey]|probabl[ey]|presumed|query|likely|unconfirmed|cannot (?:be )?exclude"
    r"|to be (?:confirmed|ruled out))\b|疑似|可疑|可能|待查|待排|待确诊|考虑|不除外|不能排除|未确诊"
)
_CERTAIN = re.compile(r"\b(?:confirmed|proven|established|definite|diagnosed with)\b|确诊|证实|明确诊断")
_PAST = re.compile(
    r"\b(?:resolved|inactive|in remission|discontinued|stopped|ceased|no longer|former(?:ly)?|previous(?:ly)?|healed)\b"
    r"|已?痊愈|已?治愈|已?停用|已?停药|已?停止|曾用|已结束|已缓解|既往"
)
_PRESENT = re.compile(
    r"\b(?:current(?:ly)?|at present|active|ongoing|now has|now takes|is (?:still )?(?:on|taking))\b"
    r"|目前|现在|正在|现服|仍在"
)
_KIN = re.compile(
    r"\b(?:father|mother|parents?|brother|sister|siblings?|son|daughter|grand\w+|uncle|aunt|cousin|family|relatives?"
    r"|maternal|paternal)\b|父|母|兄|弟|姐|妹|祖|外公|外婆|叔|姑|舅|姨|家族|家属|亲属"
)
_TEXTS = {
    "certainty-raised": Text(
        zh="病历为疑似或待查,陈述写成确诊", en="confirmed here, suspected in the record lines it cites"
    ),
    "past-as-present": Text(zh="病历为既往或已停,陈述写成现在", en="present here, past in the record lines it cites"),
    "relative-as-patient": Text(
        zh="病历说的是亲属,陈述写成患者", en="of the patient here, of a relative in the record"
    ),
}


class Status(Guard):
    """Certainty, time and person."""

    id: ClassVar[str] = "status"
    version: ClassVar[str] = "1.0.0"
    codes: ClassVar[frozenset[str]] = frozenset(_TEXTS)

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """FLAG for each statement that is surer, later, or about somebody else than what it cites."""
        found = (
            (n, code)
            for n, statement in enumerate(answered.statements)
            if not asks(statement.text)
            for code in _faults(plain(statement.text), answered.cited(statement))
        )
        return [Verdict(Action.FLAG, code, _TEXTS[code], n) for n, code in found]


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [Status()]


def _faults(said: str, cited: Sequence[Fact]) -> Iterable[str]:
    record = " ".join(plain(fact.text) for fact in cited)
    if _CERTAIN.search(said) and _SUSPECTED.search(record) and not (_CERTAIN.search(record) or _SUSPECTED.search(said)):
        yield "certainty-raised"
    if _PRESENT.search(said) and _PAST.search(record) and not (_PRESENT.search(record) or _PAST.search(said)):
        yield "past-as-present"
    if cited and all(_of_kin(fact) for fact in cited) and not _KIN.search(said):
        yield "relative-as-patient"


def _of_kin(fact: Fact) -> bool:
    return fact.source.startswith("FamilyMemberHistory/")
