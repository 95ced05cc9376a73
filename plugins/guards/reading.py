"""How guards read a text: disguises undone, case folded, so that "４０ mg", "4<zero width>0 mg" and "40 MG" are one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

#: Cyrillic and Greek letters that look like Latin ones (Unicode UTS #39, confusables: single letters).
_LOOKALIKES = str.maketrans(
    "АВЕЅІЈКМНОРСТХУаеоскрхуіѕјԁһԛԝΑΒΕΖΗΙΚΝΟΡΤΥΧορ",
    "ABESIJKMHOPCTXYaeockpxyisjdhqwABEZHIKNOPTYXop",
)
_INVISIBLE = frozenset({"Cf", "Cc", "Cs", "Co", "Cn"})
_LETTER_BY_LETTER = re.compile(r"(?<![^\W\d_])(?:[^\W\d_][ .\-_*]){3,}[^\W\d_](?![^\W\d_])")
_EXPONENT = re.compile("(?<=[0-9A-Za-z])⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_HAN = re.compile(r"[\u3400-\u9fff]")
_LATIN = re.compile(r"[a-z]{3,}")
_ASKS = re.compile(r"[??]\s*$|(?:吗|呢|么)[。.]?\s*$")


@lru_cache(maxsize=1024)  # every guard reads the same facts
def plain(text: str) -> str:
    """`text` in lower case, compatibility forms and lookalike letters folded, without what cannot be seen.

    Source: Unicode NFKC (UAX #15); lookalikes of UTS #39.
    """
    kept = (" " if c.isspace() else c for c in text)
    visible = "".join(c for c in kept if unicodedata.category(c) not in _INVISIBLE)
    folded = unicodedata.normalize("NFKC", visible).translate(_LOOKALIKES)
    return " ".join(folded.lower().split())


def together(text: str) -> str:
    """`plain(text)` with words that are written l-e-t-t-e-r by letter put together."""
    return _LETTER_BY_LETTER.sub(lambda m: re.sub(r"[ .\-_*]", "", m[0]), plain(text))


def without_exponents(text: str) -> str:
    """`text` in which "10⁹" is "10" and "m²" is "m", before NFKC would make them 109 and m2."""
    return _EXPONENT.sub("", text)


def asks(text: str) -> bool:
    """Whether a text is a question: it claims nothing."""
    return bool(_ASKS.search(plain(text)))


def has_han(text: str) -> bool:
    """Whether a text holds Chinese characters."""
    return bool(_HAN.search(text))


def same_script(text: str, others: Iterable[str]) -> bool:
    """Whether words of `text` can stand in `others` at all: both hold Chinese, or neither needs to."""
    joined = " ".join(others)
    return has_han(joined) if has_han(text) else bool(_LATIN.search(plain(joined)))
