"""Whether a text claims a thing or denies it, in Chinese and English: the negation rules under the red flags.

In doubt a mention counts: missing a red flag costs more than a look too many. Scope follows NegEx (Chapman et al.,
J Biomed Inform 2001;34:301-310): a negation reaches over a short list, and ends at a comma (except after "denies"),
at the end of the sentence, and at "but".
"""

from __future__ import annotations

import re

_SENTENCE = re.compile(r"[。;;!?!?\n]|\.(?=\s|$)|,?\s*\b(?:but|however|although|except)\b|[,,]?(?:但是|但|然而|却)")

#: Negators that reach to the end of the sentence over commas.
_DENIES = r"\b(?:denie[sd]|denying|negative for)\b[^.;]{0,120}$"

#: Negators that reach over a few words and an "or" list, not over a comma. "no relief of ..." denies nothing.
_NO = (
    r"\b(?:(?:no|without|never had|never|free of|not have|not having)(?!\s+(?:relief|improvement|change|longer|doubt))"
    r"|(?:do|does|did|is|am|are|was|were|have|has)(?:\s+not|n['’]?t)(?:\s+(?:have|had|having|feel|feeling|get|getting))?)"
    r"(?:\s+(?!with\b|because\b|due\b|from\b|since\b|after\b)[\w/-]+){0,3}(?:\s+(?:or|and|nor)\s+[\w-]+){0,3}\s*$"
)

#: Chinese negators: over modifiers and a 、 list. 无明显诱因出现… ("without a cause there came ...") denies nothing.
_ZH = (
    r"(?:否认|未诉|未见|未出现|未发生|不伴有?|并无|从未|从无|没有?|无|未)"
    r"(?!明显诱因|诱因|缓解|好转|减轻|法|力|故|缘|改善|吃|睡|治)"
    r"(?:[^,,。;;!?]{1,10}(?:[、和及或与]))*"
    r"(?:明显|任何|伴有?|有|过|再|出现|发生|诉|剧烈|严重|突发|突然|持续性?|反复|阵发性?|的|大量|活动性|进行性|自觉|感)*$"
)
_BEFORE = re.compile(f"(?i)(?:{_DENIES}|{_NO}|{_ZH})")
_AFTER = re.compile(
    r"(?i)\s*(?:[((]\s*[--]\s*[))]|阴性"
    r"|[::]\s*(?:no|none|denied|absent|否认|否|无|没有)\s*(?:$|[,,。;;.]))"
)


def affirmed(text: str, term: re.Pattern[str]) -> bool:
    """Whether `text` mentions `term` at least once without denying it."""
    return any(_claims(sentence, term) for sentence in _SENTENCE.split(text))


def _claims(sentence: str, term: re.Pattern[str]) -> bool:
    for match in term.finditer(sentence):
        before, after = sentence[: match.start()], sentence[match.end() :]
        if not _BEFORE.search(before[-160:]) and not _AFTER.match(after):
            return True
    return False
