"""A text as grams that an index can count, in Chinese and English; why these: docs/decisions/010-knowledge-base.md.

Chinese is written without spaces, so each pair of neighbouring characters is a gram: no dictionary to install or to be
wrong about "预约挂号". English words are cut into threes, so that "admitted" and "admission" share some.
"""

from __future__ import annotations

import re
import unicodedata

_RUN = re.compile(r"[\u3400-\u9fff]+|[a-z0-9]+")
#: What a question is made of besides its subject: cut out before pairs are made, so that none spans it.
_FILLERS = re.compile(
    "请问|你好|您好|谢谢|想问|想知道|我想|我要|我们|你们|我的|怎么样|怎么办|怎么|怎样|如何|为什么|什么时候|什么|哪些|哪里|哪儿|哪个"
    "|多少|多久|几点|几天|是不是|能不能|可不可以|要不要|有没有|可以|能否|是否|需要|应该|医院|[吗呢吧啊呀的了我你您他她它们和与或就也都在是]"
)
_COMMON = frozenset({
    "the", "an", "and", "or", "of", "to", "in", "on", "at", "for", "with", "by", "from", "is", "are", "was", "be", "am",
    "it", "its", "this", "that", "there", "what", "when", "where", "which", "who", "how", "why", "do", "does", "did",
    "can", "could", "may", "should", "would", "will", "shall", "my", "me", "we", "our", "you", "your", "they", "their",
    "have", "has", "had", "if", "as", "not", "no", "any", "some", "please", "tell", "need", "want", "much", "many",
    "long", "hospital", "about", "get", "us", "he", "she", "his", "her",
})  # fmt: skip


def tokens(text: str) -> list[str]:
    """The grams of a text in order, without what a question is made of besides its subject."""
    folded = unicodedata.normalize("NFKC", text).lower()
    found: list[str] = []
    for run in _RUN.findall(_FILLERS.sub(" ", folded)):
        if is_chinese(run):
            found += [run[i : i + 2] for i in range(len(run) - 1)] or [run]
        elif len(run) > 1 and run not in _COMMON:
            found += [run[i : i + 3] for i in range(len(run) - 2)] or [run]
    return found


def is_chinese(gram: str) -> bool:
    """Whether a gram is of Chinese characters."""
    return gram[0] >= "\u3400"
