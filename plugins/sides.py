"""Left and right of which part of the body: what a text says, in Chinese and English, by a closed list of parts."""

from __future__ import annotations

import re
from typing import Literal

Side = Literal["left", "right", "both"]

#: Part -> how it is called. Longer names stand before those that they hold.
_PARTS: dict[str, str] = {
    "knee": r"膝|\bknees?\b",
    "hip": r"髋|\bhips?\b",
    "shoulder": r"肩|\bshoulders?\b",
    "elbow": r"肘|\belbows?\b",
    "wrist": r"腕|\bwrists?\b",
    "ankle": r"踝|\bankles?\b",
    "femur": r"股骨|\bfemur\b|\bfemoral (?:neck|shaft)\b",
    "tibia": r"胫骨|\btibiae?\b",
    "radius": r"桡骨|\bradius\b",
    "humerus": r"肱骨|\bhumerus\b",
    "clavicle": r"锁骨|\bclavicles?\b",
    "foot": r"足|\bf(?:oo|ee)t\b",
    "hand": r"手(?!术)|\bhands?\b",
    "arm": r"上肢|胳膊|\barms?\b|\bupper (?:limb|extremity)\b",
    "leg": r"下肢|腿|\blegs?\b|\blower (?:limb|extremity)\b",
    "eye": r"眼|\beyes?\b",
    "ear": r"耳|\bears?\b",
    "kidney": r"肾|\bkidneys?\b",
    "lung": r"肺|\blungs?\b",
    "breast": r"乳腺|乳房|乳|\bbreasts?\b",
    "ovary": r"卵巢|\bovar(?:y|ies)\b",
    "testis": r"睾丸|\btest(?:is|icles?)\b",
    "ureter": r"输尿管|\bureters?\b",
    "groin": r"腹股沟|\bgroin\b|\binguinal\b",
    "carotid": r"颈(?:内|总|外)?动脉|\bcarotids?\b",
}
_NAMES = "|".join(f"(?P<{part}>{names})" for part, names in _PARTS.items())
_SIDE = r"(?P<left>左|\bleft\b)|(?P<right>(?<!左)右|\bright\b)|(?P<both>双|两侧|左右|\bboth\b|\bbilateral\b)"
#: A side, then at most a few letters ("侧", "-sided", "upper"), then a part of the body.
_MENTION = re.compile(rf"(?i)(?:{_SIDE})(?:侧|边|[- ]?sided)?[\s的]*(?:(?:[a-z]+\s+){{0,1}}?)(?:{_NAMES})")
#: The other way round: "knee, left", "Structure of knee (left)".
_BEHIND = re.compile(rf"(?i)(?:{_NAMES})[^.。;;\n]{{0,12}}?[,(\[(,]\s*(?:{_SIDE})")


def mentions(text: str) -> frozenset[tuple[str, Side]]:
    """Every (part, side) that a text names."""
    found: set[tuple[str, Side]] = set()
    for match in (*_MENTION.finditer(text), *_BEHIND.finditer(text)):
        named = {name for name, value in match.groupdict().items() if value}
        sides: tuple[Side, ...] = ("left", "right", "both")
        side = next(s for s in sides if s in named)
        found |= {(part, side) for part in named if part in _PARTS}
    return frozenset(found)
