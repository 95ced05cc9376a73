"""What a prescription or an allergy says of its substance: by code, and by name in Chinese and English."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from plugins.fhir_text import display, listed
from plugins.scenario import Resource

#: Words of a medicine's or an allergy's name that name no substance.
_NO_SUBSTANCE = frozenset({
    "allergy", "allergic", "allergen", "reaction", "intolerance", "substance", "product", "class", "finding",
    "disorder", "propensity", "adverse", "medication", "organism", "containing", "other", "unknown", "tablet",
    "tablets", "capsule", "capsules", "injection", "injectable", "solution", "suspension", "cream", "ointment", "patch",
    "spray", "inhaler", "inhalant", "metered", "actuation", "powder", "syringe", "prefilled", "extended", "delayed",
    "release", "coated", "chewable", "disintegrating", "oral", "topical", "nasal", "ophthalmic", "transdermal",
    "delivery", "system", "daily", "hours", "sodium", "potassium", "calcium", "magnesium", "hydrochloride", "sulfate",
    "succinate", "tartrate", "maleate", "fumarate", "besylate", "mesylate", "phosphate", "acetate", "citrate",
    "bromide", "chloride", "nitrate", "propionate", "valerate", "monohydrate", "trihydrate", "anhydrous", "insulin",
})  # fmt: skip
#: Parts of a Chinese name that name no substance: salts before it, forms around it, what makes it an allergy.
_NO_SUBSTANCE_ZH = re.compile(
    r"^对|(?:药物|制剂)?过敏(?:史|反应)?$|类(?:药物|抗生素)?$|药物|注射用|注射液|肠溶|缓释|控释|分散|咀嚼|泡腾|口服|外用|吸入|"
    r"胶囊|颗粒|片剂|片$|溶液|混悬液|气雾剂|软膏|乳膏|滴眼液|贴剂|粉针剂?|"
    r"^(?:盐酸|硫酸|磷酸|枸橼酸|马来酸|酒石酸|富马酸|苯磺酸|甲磺酸|琥珀酸|醋酸)|(?<=[\u4e00-\u9fff]{3})[钠钾钙]$"
)
_HAN = re.compile(r"[\u4e00-\u9fff]{2,}")


def concept(prescription: Resource) -> Mapping[str, Any]:
    """What is prescribed, as a CodeableConcept or a Reference: also from a contained Medication."""
    coded = prescription.get("medicationCodeableConcept")
    if isinstance(coded, Mapping):
        return coded
    pointer = prescription.get("medicationReference")
    named: Mapping[str, Any] = pointer if isinstance(pointer, Mapping) else {}
    inside = str(named.get("reference") or "").removeprefix("#")
    for contained in listed(prescription, "contained"):
        if isinstance(contained, Mapping) and contained.get("id") == inside and display(contained.get("code")):
            return dict(contained["code"])
    return named


def names(named: Mapping[str, Any]) -> str:
    """Every name that a CodeableConcept gives, one a line; "" where it gives none."""
    given = [display(named), *(str(c.get("display") or "") for c in _codings(named))]
    return "\n".join(dict.fromkeys(filter(None, given)))


def same(allergen: Mapping[str, Any], drug: Mapping[str, Any]) -> bool:
    """Whether two concepts share a coding, or the drug's name holds the first one's substance."""
    if _keys(allergen) & _keys(drug):
        return True
    ours, theirs = substances(names(allergen)), substances(names(drug))
    return any(mine in their if _HAN.fullmatch(mine) else mine == their for mine in ours for their in theirs)


def substances(name: str) -> frozenset[str]:
    """The words of a name that stand for a substance, without salts, forms and strengths."""
    latin = {w for w in re.findall(r"[a-z]{5,}", name.lower()) if w not in _NO_SUBSTANCE}
    han = {_bare(part) for part in _HAN.findall(name)}
    return frozenset(latin | {part for part in han if len(part) >= 2})


def _bare(name: str) -> str:
    while (shorter := _NO_SUBSTANCE_ZH.sub("", name)) != name:
        name = shorter
    return name


def _keys(named: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((str(c["system"]), str(c["code"])) for c in _codings(named) if c.get("system") and c.get("code"))


def _codings(named: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [c for c in listed(named, "coding") if isinstance(c, Mapping)]
