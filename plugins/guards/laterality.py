"""Guard `laterality`: left is left. A side in a statement is the side of the fact that it cites."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.reading import plain
from plugins.hookspecs import hookimpl
from plugins.scenario import Text

_BODY = (
    "arm|leg|knee|hip|ankle|foot|hand|wrist|elbow|shoulder|eye|ear|lung|kidney|breast|chest|lobe|ventric|atri|bundle|"
    "femur|femoral|femora|tibia|humerus|hemisphere|side|sided|flank|groin|ovar|test|temporal|frontal|parietal|occipital|"
    "carotid|iliac|inguinal|abdom|thigh|calf|heel|toe|finger|thumb|cheek|jaw|face|facial|quadrant|coronary|thyroid|ureter|"
    "adrenal|hemipar|hemipleg|nephrectomy|mastectomy|pleura|effusion|pneumothorax|radius|ulna|clavicle|rib|buttock|neck|"
    "nostril|tonsil|limb|extremity|hearing|vision|cataract|hernia|renal|pulmonary|heart|upper|lower|middle|great|index"
)
_EN = re.compile(
    r"\b(left|right|bilateral|both)[ -](?:(?:upper|lower|middle|anterior|posterior|proximal|distal|the|main)\s)?"
    rf"({_BODY})\w*"
    r"|\b(?:on|to|of|in) the (left|right)\b(?! (?:way|track|time))()|\b(bilaterally)\b()"
)
#: 左氧氟沙星, 左甲状腺素, 右美沙芬 are medicines; "3天左右" is "about".
_ZH = re.compile(
    r"(左(?!右)|(?<!左)右)(?!氧|甲状|旋|美|佐|西|乙|卡尼|炔|布比|舒必)((?:侧)?[\u4e00-\u9fff]{0,2})"
    r"|(双|两)(侧[\u4e00-\u9fff]{0,2}|[肺眼肾耳手足膝髋踝肩肘腿臂乳][\u4e00-\u9fff]?|[上下]肢)"
)
_SIDES = {"left": "L", "左": "L", "right": "R", "右": "R"}
_TEXTS = {
    "side-contradicted": Text(zh="左右侧与所引用的病历行相反", en="the other side than the record line it cites"),
    "side-unsupported": Text(zh="所引用的病历行未写侧别", en="a side that the record lines it cites do not give"),
}


@dataclass(frozen=True, slots=True)
class _Side:
    """One mention: which sides ("L", "R" or both), of what (the first letters of the part; "" where it is not said)."""

    sides: frozenset[str]
    part: str


class Laterality(Guard):
    """Left, right and both."""

    id: ClassVar[str] = "laterality"
    version: ClassVar[str] = "1.0.0"
    codes: ClassVar[frozenset[str]] = frozenset(_TEXTS)

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """CUT where the cited facts give the other side, FLAG where they give none."""
        verdicts = []
        for n, statement in enumerate(answered.statements):
            known = [side for fact in answered.cited(statement) for side in _mentions(fact.text)]
            codes = {_fault(said, known) for said in _mentions(statement.text)}
            if "side-contradicted" in codes:
                verdicts.append(Verdict(Action.CUT, "side-contradicted", _TEXTS["side-contradicted"], n))
            elif "side-unsupported" in codes:
                verdicts.append(Verdict(Action.FLAG, "side-unsupported", _TEXTS["side-unsupported"], n))
        return verdicts


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [Laterality()]


def _fault(said: _Side, known: Sequence[_Side]) -> str | None:
    if not known:
        return "side-unsupported"
    same = [fact for fact in known if fact.part and fact.part == said.part] or known
    there = frozenset().union(*(fact.sides for fact in same))
    return None if said.sides <= there else "side-contradicted"


def _mentions(text: str) -> list[_Side]:
    folded = plain(text)
    found = []
    for match in _EN.finditer(folded):
        side, part = next((s, p) for s, p in zip(match.groups()[::2], match.groups()[1::2], strict=True) if s)
        found.append(_Side(_sides(side), part[:4]))
    for match in _ZH.finditer(folded):
        side, part = (match[1], match[2]) if match[1] else (match[3], match[4])
        found.append(_Side(_sides(side), part.removeprefix("侧")[:1]))
    return found


def _sides(word: str) -> frozenset[str]:
    side = _SIDES.get(word)
    return frozenset({side}) if side else frozenset({"L", "R"})
