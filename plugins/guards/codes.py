"""Guard `codes`: a code of a terminology in a statement stands in a cited fact, and coded answers use systems we know.

A model recites codes that look right; nobody sees from "I21.9" that it is another disease.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel

from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.reading import plain
from plugins.hookspecs import hookimpl
from plugins.scenario import Text

#: Code systems that an answer's codings may name, or begin with. Source: FHIR R4 4.3 (terminologies), HL7 Terminology.
ALLOWED = (
    "http://loinc.org",
    "http://snomed.info/sct",
    "http://hl7.org/fhir/",
    "http://terminology.hl7.org/CodeSystem/",
    "http://unitsofmeasure.org",
    "http://www.nlm.nih.gov/research/umls/rxnorm",
    "http://www.whocc.no/atc",
    "urn:careloom:",
)
_SYSTEM = r"(?:icd-?\s?(?:9|10|11)?(?:-?(?:cm|pcs))?|loinc|snomed(?:[ -]?ct)?|rxnorm|atc|cpt|drg|国临版)"
_NAMED = re.compile(rf"\b{_SYSTEM}(?:\s?(?:codes?|编码|代码|码))?[\s:#(]*([a-z]{{0,2}}\d[\da-z.+-]{{1,17}})")
#: ICD-10 with its subdivision; without one it could be a vitamin or a vertebra.
_ICD = re.compile(r"(?<![a-z0-9.])([a-tv-z]\d[0-9a-b]\.[\dx][\da-z]{0,3})(?![a-z0-9.])")
_LOINC = re.compile(r"(?<![\d-])(\d{3,5}-\d)(?![\d-])")
_TEXTS = {
    "code-unsupported": Text(
        zh="所引用的病历行中没有这个编码", en="a code that stands in none of the record lines it cites"
    ),
    "code-system-unknown": Text(
        zh="答案使用了未被允许的编码体系", en="the answer uses a code system that is not allowed"
    ),
}


class Codes(Guard):
    """Codes of terminologies."""

    id: ClassVar[str] = "codes"
    version: ClassVar[str] = "1.0.0"
    codes: ClassVar[frozenset[str]] = frozenset(_TEXTS)

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """CUT for a code without support; FLAG the answer that names a code system that is not allowed."""
        verdicts = []
        for n, statement in enumerate(answered.statements):
            cited = plain(" ".join(fact.text for fact in answered.cited(statement)))
            if any(code not in cited for code in written(statement.text)):
                verdicts.append(Verdict(Action.CUT, "code-unsupported", _TEXTS["code-unsupported"], n))
        if any(not system.startswith(ALLOWED) for system in _systems(answered.answer)):
            verdicts.append(Verdict(Action.FLAG, "code-system-unknown", _TEXTS["code-system-unknown"]))
        return verdicts


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [Codes()]


def written(text: str) -> frozenset[str]:
    """The codes in a text, in lower case: named ones, ICD-10 with a subdivision, LOINC with a right check digit."""
    folded = plain(text)
    named = {code.rstrip(".-+") for code in _NAMED.findall(folded)}
    return frozenset(named | set(_ICD.findall(folded)) | {c for c in _LOINC.findall(folded) if _is_loinc(c)})


def _is_loinc(code: str) -> bool:
    """Whether the last digit is the check digit (LOINC Users' Guide, appendix C: Mod 10)."""
    total = 0
    for n, digit in enumerate(reversed(code[:-2])):
        doubled = int(digit) * (2 if n % 2 == 0 else 1)
        total += doubled // 10 + doubled % 10
    return (10 - total % 10) % 10 == int(code[-1])


def _systems(node: object) -> Iterator[str]:
    """The `system` of every coding inside an answer."""
    if isinstance(node, BaseModel):
        yield from _systems({name: getattr(node, name) for name in type(node).model_fields})
    elif isinstance(node, Mapping):
        listing: Mapping[str, Any] = node
        if isinstance(listing.get("system"), str) and "code" in listing:
            yield listing["system"]
        for value in listing.values():
            yield from _systems(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _systems(value)
