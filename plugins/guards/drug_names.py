"""Guard `drug-names`: every medicine that a statement names stands in a fact that it cites.

A medicine is a word with an INN stem, a name of the list, or whatever the case's own prescriptions and allergies are
called. Names in two languages are one where the list pairs them. Brand names that no record line holds are not known.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from plugins.fhir_text import display, listed
from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.reading import has_han, plain
from plugins.hookspecs import hookimpl
from plugins.scenario import Case, Resource, Statement, Text

_TEXTS = {
    "drug-unsupported": Text(
        zh="所引用的病历行中没有这种药", en="a medicine that stands in none of the record lines it cites"
    ),
    "drug-elsewhere": Text(
        zh="这种药在病历其他行中,未被引用", en="a medicine of the record, but not of the lines that the statement cites"
    ),
    "drug-not-compared": Text(
        zh="药名与所引用病历行语言不同,无法核对", en="a medicine's name that cannot be compared across two languages"
    ),
}
_LATIN_WORD = re.compile(r"[a-z][a-z-]{3,}")
#: Words of a prescription's display that name no substance.
_NO_SUBSTANCE = re.compile(
    r"(?:allerg\w*|intoleran\w*|reaction|oral|tablets?|capsules?|injection|solution|extended|release|hour|actuat\w*|inhaler"
    r"|cream|ointment|hydrochloride|sodium|acid|powder|drops?|spray|patch|daily|product|medication|substance|known"
    r"|containing|metered|dose|pack|prefilled|syringe|chewable|delayed|suspension|topical|nasal|ophthalmic|pollen|dust"
    r"|mould|mold|food|animal|dander|grass|latex|bee|venom|peanuts?|nuts?|eggs?|milk|fish|shellfish|wheat|soya?)"
)
_FORMS_ZH = re.compile(
    r"(?:注射用|注射液|肠溶|缓释|控释|分散|咀嚼|胶囊|颗粒|片剂?|口服液?|滴眼液|软膏|钠$|钾$|过敏|药物|盐酸|硫酸|酒石酸|苯磺酸)"
)


class DrugNames(Guard):
    """Medicines named without support."""

    id: ClassVar[str] = "drug-names"
    version: ClassVar[str] = "1.0.0"
    codes: ClassVar[frozenset[str]] = frozenset(_TEXTS)

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """CUT for a medicine that stands nowhere, FLAG for one of other lines, or one that cannot be compared."""
        shown = [plain(text) for texts in answered.facts.values() for text in texts]
        own = _of_record(answered.case)
        verdicts = []
        for n, statement in enumerate(answered.statements):
            code = _fault(statement, [plain(fact.text) for fact in answered.cited(statement)], shown, own)
            if code:
                action = Action.CUT if code == "drug-unsupported" else Action.FLAG
                verdicts.append(Verdict(action, code, _TEXTS[code], n))
        return verdicts


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [DrugNames()]


def drugs(text: str, own: frozenset[str] = frozenset()) -> frozenset[str]:
    """The medicines that a text names, in lower case; a Chinese name as far as its stem makes it certain.

    Args:
        text: any text.
        own: names to know beside the stems and the list.
    """
    table = _table()
    folded = plain(text)
    words = frozenset(_LATIN_WORD.findall(folded))
    known = frozenset(word for word in words if word in table.english or word in own)
    stemmed = frozenset(w for w in words if table.stem_en.fullmatch(w) and w not in table.not_drugs)
    chinese = frozenset(name for name in (table.chinese | own) if has_han(name) and name in folded)
    covered = folded
    for name in sorted(chinese, key=len, reverse=True):
        covered = covered.replace(name, " ")
    return known | stemmed | chinese | frozenset(table.stem_zh.findall(covered))


class _Table:
    """`drug_names.toml`, compiled."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.stem_en = re.compile("|".join(data["stems"]["en"]))
        self.stem_zh = re.compile(f"(?:{'|'.join(data['stems']['zh'])})(?!类)")
        self.not_drugs = frozenset(data["stems"]["not_drugs"])
        self.english: Mapping[str, str] = data["names"]
        self.chinese = frozenset(self.english.values())


@cache
def _table() -> _Table:
    return _Table(tomllib.loads((Path(__file__).parent / "drug_names.toml").read_text(encoding="utf-8")))


def _fault(statement: Statement, cited: Sequence[str], shown: Sequence[str], own: frozenset[str]) -> str | None:
    missing = [name for name in drugs(statement.text, own) if not _stands(name, cited)]
    if not missing:
        return None
    if any(not _comparable(name, cited) for name in missing):
        return "drug-not-compared"
    return "drug-elsewhere" if all(_stands(name, shown) for name in missing) else "drug-unsupported"


def _stands(name: str, texts: Iterable[str]) -> bool:
    """Whether one of the texts holds the name, in either language where the list pairs them."""
    table = _table()
    joined = "\n".join(texts)
    others = [table.english[name]] if name in table.english else [e for e, z in table.english.items() if z == name]
    return any(_holds(joined, other, table.chinese) for other in (name, *others))


def _holds(text: str, name: str, chinese: Iterable[str]) -> bool:
    """Whether a text holds a name as a name of its own: 肾上腺素 is not in 去甲肾上腺素."""
    if not has_han(name):
        return bool(re.search(rf"(?<![a-z]){re.escape(name)}(?![a-z])", text))
    for longer in chinese:
        if name in longer and name != longer:
            text = text.replace(longer, " ")
    return name in text


def _comparable(name: str, texts: Sequence[str]) -> bool:
    """False where the name is in no list and the texts name medicines in the other language only."""
    table = _table()
    if name in table.english or name in table.chinese:
        return True
    there = drugs("\n".join(texts))
    return not there or any(has_han(other) == has_han(name) for other in there)


def _of_record(case: Case) -> frozenset[str]:
    """What the case's own prescriptions, dispenses and allergies call their substances."""
    names: set[str] = set()
    held = (r for found in case.resources.values() for r in found)
    for resource in (case.trigger, *held):
        if str(resource.get("resourceType", "")).startswith(("Medication", "AllergyIntolerance")):
            names |= _substances(resource)
    return frozenset(names)


def _substances(resource: Resource) -> set[str]:
    shown = [
        plain(display(resource.get(name))) for name in ("medicationCodeableConcept", "medicationReference", "code")
    ]
    shown += [
        plain(display(i.get("itemCodeableConcept"))) for i in listed(resource, "ingredient") if isinstance(i, dict)
    ]
    found: set[str] = set()
    for text in filter(None, shown):
        found |= {w for w in _LATIN_WORD.findall(text) if len(w) > 4 and not _NO_SUBSTANCE.fullmatch(w)}
        found |= {part for part in re.findall(r"[\u4e00-\u9fff]{2,}", _FORMS_ZH.sub(" ", text)) if len(part) > 1}
    return found
