"""Guard `other-patient`: names and identifiers of anyone but the case's patient do not stand in a draft about him.

What is compared: resident identity numbers (GB 11643-1999, with their check digit), mobile numbers, addresses of mail,
numbers called record or card number, "Patient/<id>", names with a title or a label, a date called birth date.
A number or address in a cited passage of the knowledge base is the hospital's own and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from plugins.fhir_text import listed
from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.guards.dated import Day, days_in
from plugins.guards.reading import plain
from plugins.hookspecs import hookimpl
from plugins.scenario import PASSAGE, Resource, Text

_ID_CARD = re.compile(r"(?<![\da-z])(\d{17}[\dx])(?![\da-z])")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CHECK = "10x98765432"
_MOBILE = re.compile(r"(?<![\d.])(?:\+?86[ -]?)?(1[3-9]\d)[ -]?(\d{4})[ -]?(\d{4})(?![\d.])")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_NUMBERED = re.compile(
    r"(?:mrn|medical record (?:no|number)|patient id|record no|ssn|passport|病历号|病案号|住院号|门诊号|就诊卡号"
    r"|医保卡号|医保号|社保号|护照号?|身份证号?码?)"
    r"[ :.#号为是]*([a-z]{0,3}\d[\da-z-]{3,20})"
)
_REFERENCE = re.compile(r"patient/([a-z0-9\-.]{1,64})")
_SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩冯邓曹彭曾肖田董潘袁蔡蒋余于杜叶程魏苏吕丁任卢姚沈钟姜崔谭陆范汪廖石金"
    "韦贾夏付方邹熊白孟秦邱侯江尹薛闫段雷龙黎史陶贺顾毛郝龚邵万覃武钱戴严莫孔向常汤"
)
_NAMES_ZH = (
    re.compile(rf"(?:姓名|患者名|病人名)(?:叫|为|是|[::])?\s?([{_SURNAMES}][\u4e00-\u9fff]{{1,2}})(?![\u4e00-\u9fff])"),
    re.compile(rf"(?:患者|病人)([{_SURNAMES}][\u4e00-\u9fff]{{1,2}})(?=[,,]\s?[男女])"),
    re.compile(rf"(?<![\u4e00-\u9fff])([{_SURNAMES}][\u4e00-\u9fff]{{1,2}})(?=[,,]\s?[男女][,,]\s?\d)"),
    re.compile(rf"([{_SURNAMES}])[\u4e00-\u9fff]{{0,2}}(?:先生|女士|小姐|阿姨|大爷|奶奶|爷爷)"),
)
_NAME_EN = re.compile(
    r"\b(?:Mr|Mrs|Ms|Miss|Master|MR|MRS|MS)\b\.?\s+([A-Z][\w'-]+(?:\s[A-Z][\w'-]+)?)|"
    r"\b(?:[Pp]atient(?:'s)? name(?: is|:)?|[Nn]ame:|[Tt]he patient,|[Pp]atient:)\s+([A-Z][\w'-]+\s[A-Z][\w'-]+)"
)
_BORN = re.compile(r"(?:born(?: on)?|date of birth|dob|birth date|出生日期|出生于|生于|生日)[ ::为是]*(.{6,24})")
_TEXTS = {
    "other-identifier": Text(
        zh="不属于本患者的证件号、号码或地址", en="an identifier, number or address that is not this patient's"
    ),
    "other-name": Text(zh="不是本患者的姓名", en="a name that is not this patient's"),
    "other-birth-date": Text(zh="不是本患者的出生日期", en="a birth date that is not this patient's"),
    "record-holds-other": Text(
        zh="病历行中有不属于本患者的证件号,可能混入他人资料",
        en="the record lines hold another person's identity number: may be mixed up",
    ),
}


class OtherPatient(Guard):
    """Other people's data."""

    id: ClassVar[str] = "other-patient"
    version: ClassVar[str] = "1.0.0"
    codes: ClassVar[frozenset[str]] = frozenset(_TEXTS)

    def check(self, answered: Answered) -> Sequence[Verdict]:
        """CUT for another's data in a statement; FLAG where the record shown holds another's identity number."""
        person = answered.case.patient or {}
        own = _identifiers(person)
        verdicts = []
        for n, statement in enumerate(answered.statements):
            house = plain(" ".join(f.text for f in answered.cited(statement) if f.source.startswith(PASSAGE)))
            code = _fault(statement.text, person, own, house)
            if code:
                verdicts.append(Verdict(Action.CUT, code, _TEXTS[code], n))
        shown = plain(" ".join(text for texts in answered.facts.values() for text in texts))
        if any(card not in own for card in _id_cards(shown)):
            verdicts.append(Verdict(Action.FLAG, "record-holds-other", _TEXTS["record-holds-other"]))
        return verdicts


@hookimpl
def careloom_guards() -> Iterable[Guard]:
    """This plugin's guard."""
    return [OtherPatient()]


def _fault(text: str, person: Resource, own: frozenset[str], house: str) -> str | None:
    folded = plain(text)
    if any(number not in own and number not in house for number in _numbers(folded)):
        return "other-identifier"
    if any(not _is_name(name, person) for name in _names(text)):
        return "other-name"
    return "other-birth-date" if any(not _born(said, person) for said in _BORN.findall(folded)) else None


def _numbers(folded: str) -> Iterator[str]:
    yield from _id_cards(folded)
    yield from ("".join(match) for match in _MOBILE.findall(folded))
    yield from _MAIL.findall(folded)
    yield from _NUMBERED.findall(folded)
    yield from (name.rstrip(".") for name in _REFERENCE.findall(folded))


def _id_cards(folded: str) -> list[str]:
    """The 18-character identity numbers of a text whose check digit is right (GB 11643-1999, ISO 7064 MOD 11-2)."""
    return [
        c
        for c in _ID_CARD.findall(folded)
        if _CHECK[sum(int(d) * w for d, w in zip(c, _WEIGHTS, strict=False)) % 11] == c[17]
    ]


def _identifiers(person: Resource) -> frozenset[str]:
    """Everything that identifies the case's patient, as `_numbers` writes it."""
    found = [plain(str(person.get("id", "")))]
    found += [plain(str(i.get("value", ""))) for i in listed(person, "identifier") if isinstance(i, Mapping)]
    for telecom in (t for t in listed(person, "telecom") if isinstance(t, Mapping)):
        value = plain(str(telecom.get("value", "")))
        found += [value, *("".join(match) for match in _MOBILE.findall(value))]
    return frozenset(filter(None, found))


def _names(text: str) -> Iterator[str]:
    for pattern in _NAMES_ZH:
        yield from pattern.findall(text)
    for match in _NAME_EN.finditer(text):
        yield match[1] or match[2]


def _is_name(said: str, person: Resource) -> bool:
    """Whether a name, or the surname alone, is one of the patient's."""
    known = " ".join(_spoken(name) for name in listed(person, "name") if isinstance(name, Mapping))
    return all(part in known for part in plain(said).split())


def _spoken(name: Mapping[str, Any]) -> str:
    given = [str(g) for g in listed(name, "given")]
    family = str(name.get("family", ""))
    return plain(" ".join([str(name.get("text", "")), family, *given, family + "".join(given)]))


def _born(said: str, person: Resource) -> bool:
    """False where a date stands there that the patient was not born on."""
    born = [day for readings in days_in(str(person.get("birthDate", ""))) for day in readings]
    dates: list[tuple[Day, ...]] = days_in(said)
    return not dates or any(
        fact.holds(day) or day.holds(fact) for readings in dates for day in readings for fact in born
    )
