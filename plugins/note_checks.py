"""Where a clinical note contradicts the structured record, or lacks a part that it must have; both places quoted.

Left out for want of a rule that is sure: contradictions inside one note, copied text, diagnoses without support,
abbreviations, sex-specific organs, family members' ages.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from datetime import date
from decimal import Decimal
from importlib.resources import files

from plugins import drugs
from plugins.contradictions import NO_ALLERGY, denies
from plugins.drafting import current_allergies
from plugins.fhir_text import Line, age_in_months, cited, codes, display, moment, source_of, who
from plugins.issues import Issue, issue
from plugins.note_text import sentences, title
from plugins.quantities import decimal
from plugins.record_lines import allergy, condition, medication, procedure, real
from plugins.scenario import Case, Resource, Severity, Text
from plugins.sides import mentions

_TRUE = "病历书写基本规范 (卫医政发〔2010〕11号) 第三条 (客观、真实、准确)"
_RIGHT_PATIENT = f"{_TRUE}; Joint Commission NPSG.01.01.01"
_RIGHT_SITE = f"{_TRUE}; Joint Commission UP.01.01.01"
_RECONCILED = f"{_TRUE}; Joint Commission NPSG.03.06.01"

_SEX = re.compile(
    r"(?i)(?:患者|病人|性别)\s*[::,,]?\s*(?:[\u4e00-\u9fff]{0,3}[,,])?\s*(?P<zh>男|女)"
    r"|\b\d{1,3}[- ]?(?:year|yr|y)s?[- ]?(?:old|o)\b,?\s+(?:[a-z-]+\s+){0,2}?"
    r"(?P<en>male|female|man|woman|boy|girl|gentleman|lady)\b"
    r"|\b(?:sex|gender)\s*:\s*(?P<field>male|female)\b"
)
_MALE = frozenset({"男", "male", "man", "boy", "gentleman"})
_AGE = re.compile(
    r"(?i)(?:患者|病人)[^。;;]{0,8}?(?P<zh>\d{1,3})\s*岁|(?:年龄)\s*[::]\s*(?P<field>\d{1,3})\s*岁"
    r"|(?:patient|\bpt)\b[^.]{0,30}?\b(?P<en>\d{1,3})[- ]?(?:year|yr)s?[- ]?old|\bage\s*:\s*(?P<age>\d{1,3})\b"
)
_A_DAY = r"\s*[::]?\s*(?P<day>\d{4}\s*[-年/.]\s*\d{1,2}\s*[-月/.]\s*\d{1,2})"
_ADMITTED = re.compile(rf"(?i)(?:入院(?:日期|时间)|admi(?:tted(?: on)?|ssion date|t date)){_A_DAY}")
_DISCHARGED = re.compile(rf"(?i)(?:出院(?:日期|时间)|discharge(?:d(?: on)?| date)){_A_DAY}")
_ALLERGIC = re.compile(
    r"(?i)(?:(?<!否认)(?<!无)对|有)\s*(?P<zh>[\u4e00-\u9fffA-Za-z]{2,8}?)\s*过敏(?!史?[::]?\s*[无否])"
    r"|\ballergic to (?P<en>[a-z]{4,})"
)
_ABOUT_DRUGS = re.compile(r"(?i)药物|drug|medication")
_DOSE = re.compile(r"(?i)(?P<n>\d+(?:\.\d+)?)\s*(?P<unit>mg|g|mcg|ug|μg|毫克|微克|克)(?![a-zA-Z/])")
_IN_MG = {
    "mg": "1", "毫克": "1", "g": "1000", "克": "1000", "mcg": "0.001", "ug": "0.001", "μg": "0.001", "微克": "0.001",
}  # fmt: skip
#: House rule: a dose of the note fits a strength of the record when it is so many of it (half a tablet to four).
_TABLETS = tuple(map(Decimal, ("0.5", "1", "1.5", "2", "3", "4")))


def issues(case: Case) -> list[Issue]:
    """Every contradiction between the note that triggered the case and the record, and every part that it lacks.

    It reads the queries "problems", "procedures", "orders", "allergies", "medications" and "encounters".
    """
    said = sentences(case.trigger)
    if not said:
        return []
    checks = (_sex, _age, _sides, _allergies_denied, _allergies_claimed, _doses, _stay, _parts)
    return [found for check in checks for found in check(case, said)]


def quote(case: Case, sentence: str) -> Line:
    """A sentence of the note, as a place."""
    return Line(f"“{sentence}”", cited([source_of(case.trigger)]))


def _sex(case: Case, said: Sequence[str]) -> Iterator[Issue]:
    gender = (case.patient or {}).get("gender")
    for sentence, match in _first(_SEX, said) if gender in ("male", "female") else ():
        word = next(filter(None, match.groupdict().values())).lower()
        if (word in _MALE) != (gender == "male"):
            text = Text(
                "文书所写性别与患者登记不符,可能写错患者",
                "The note's sex is not the patient's: perhaps another patient's note",
            )
            places = [quote(case, sentence), _person(case)]
            yield issue("note-sex", Severity.RED_FLAG, text, places, _RIGHT_PATIENT)


def _age(case: Case, said: Sequence[str]) -> Iterator[Issue]:
    written = moment(case.trigger.get("date")) or case.now
    months = age_in_months(case.patient, written)
    if months is None:
        return
    for sentence, match in _first(_AGE, said):
        age = int(next(filter(None, match.groupdict().values())))
        if abs(age - months // 12) > 1:
            text = Text("文书所写年龄与出生日期不符", "The note's age does not fit the date of birth")
            yield issue("note-age", Severity.WARNING, text, [quote(case, sentence), _person(case)], _RIGHT_PATIENT)


def _sides(case: Case, said: Sequence[str]) -> Iterator[Issue]:
    """The record has a part on one side only, and the note the same part on the other side only."""
    places = [(p, mentions(p.text)) for p in _sided(case)]
    noted = [(sentence, mentions(sentence)) for sentence in said]
    parts = sorted({part for _, found in places for part, _ in found})
    for part in parts:
        record = {side for _, found in places for p, side in found if p == part}
        note = {side for _, found in noted for p, side in found if p == part}
        if len(record) == 1 and len(note) == 1 and not record & note and "both" not in record | note:
            here = next(s for s, found in noted if any(p == part for p, _ in found))
            there = next(p for p, found in places if any(name == part for name, _ in found))
            text = Text("文书所写侧别与结构化病历相反", "The note names the other side than the record")
            yield issue("note-side", Severity.RED_FLAG, text, [quote(case, here), there], _RIGHT_SITE)


def _sided(case: Case) -> list[Line]:
    """What the record says of conditions, procedures and orders, with the sites that it gives."""
    shown = [(r, condition(r, case.locale)) for r in real(case.get("problems"))]
    shown += [(r, procedure(r)) for name in ("procedures", "orders") for r in real(case.get(name))]
    lines = []
    for resource, text in shown:
        sites = resource.get("bodySite") or []
        site = ", ".join(filter(None, map(display, sites if isinstance(sites, list) else [sites])))
        lines.append(Line(f"{text} [{site}]" if site else text, cited([source_of(resource)])))
    return lines


def _allergies_denied(case: Case, said: Sequence[str]) -> Iterator[Issue]:
    """The note says that there is none; the record has one. A denial of drug allergies is none of food allergies."""
    for sentence, match in _first(NO_ALLERGY, said):
        of_drugs = bool(_ABOUT_DRUGS.search(match[0]))
        for known in current_allergies(case):
            kinds = known.get("category") or []
            if (
                not denies(known)
                and display(known.get("code"))
                and (not of_drugs or not kinds or "medication" in kinds)
            ):
                text = Text("文书写无过敏,病历记有过敏原", "The note denies allergies; the record has one")
                places = [quote(case, sentence), _allergen(case, known)]
                yield issue("note-allergy-denied", Severity.RED_FLAG, text, places, _RECONCILED)


def _allergies_claimed(case: Case, said: Sequence[str]) -> Iterator[Issue]:
    """The note names an allergy; the record says expressly that there is none."""
    none = [a for a in current_allergies(case) if denies(a)]
    if not none or len(none) != len(current_allergies(case)):
        return
    for sentence, match in _first(_ALLERGIC, said):
        if not NO_ALLERGY.search(sentence) and (match["zh"] or match["en"]):
            text = Text("文书写有过敏,病历记为无过敏", "The note names an allergy; the record says that there is none")
            places = [quote(case, sentence), _allergen(case, none[0])]
            yield issue("note-allergy-claimed", Severity.RED_FLAG, text, places, _RECONCILED)


def _doses(case: Case, said: Sequence[str]) -> Iterator[Issue]:
    """A dose beside a medicine's name that is no multiple of any strength that the record gives for it."""
    for prescription in real(case.get("medications")):
        strengths = _strengths(prescription)
        wanted = drugs.substances(drugs.names(drugs.concept(prescription)))
        if len(wanted) != 1 or not strengths:  # of a combination nobody can tell which strength is meant
            continue
        for sentence in said:
            doses = _doses_after(sentence, next(iter(wanted)))
            if doses and not any(dose / strength in _TABLETS for dose in doses for strength in strengths):
                text = Text("文书所写剂量与在用医嘱不符", "The note's dose does not fit the active prescription")
                places = [quote(case, sentence), Line(medication(prescription), cited([source_of(prescription)]))]
                yield issue("note-dose", Severity.WARNING, text, places, _RECONCILED)
                break


def _strengths(prescription: Resource) -> set[Decimal]:
    """Every amount of the prescription in milligrams: in its name, its instruction, its dose."""
    found = set(_amounts(f"{drugs.names(drugs.concept(prescription))} {medication(prescription)}"))
    for instruction in prescription.get("dosageInstruction") or ():
        found |= set(_amounts(str(instruction.get("text") or "")))
        for rate in instruction.get("doseAndRate") or ():
            dose = rate.get("doseQuantity") or {}
            number, factor = decimal(dose.get("value")), _IN_MG.get(str(dose.get("code") or dose.get("unit") or ""))
            found |= {number * Decimal(factor)} if number and factor else set()
    return {amount for amount in found if amount > 0}


def _doses_after(sentence: str, substance: str) -> list[Decimal]:
    """The first amount within a few words behind the name."""
    at = sentence.lower().find(substance)
    if at < 0:
        return []
    behind = sentence[at + len(substance) : at + len(substance) + 24]
    return _amounts(re.split(r"[,,。;;、]", behind, maxsplit=1)[0])[:1]


def _amounts(text: str) -> list[Decimal]:
    return [Decimal(m["n"]) * Decimal(_IN_MG[m["unit"].lower()]) for m in _DOSE.finditer(text)]


def _stay(case: Case, said: Sequence[str]) -> Iterator[Issue]:
    """The note's days of admission and discharge against the Encounter that it names."""
    named = {e.get("reference") for e in _encounters_of(case.trigger)}
    for encounter in [e for e in real(case.get("encounters")) if source_of(e) in named]:
        period = encounter.get("period") or {}
        for pattern, end, zh, en in (
            (_ADMITTED, "start", "入院", "admission"),
            (_DISCHARGED, "end", "出院", "discharge"),
        ):
            recorded = str(period.get(end) or "")[:10]
            for sentence, match in _first(pattern, said):
                if recorded and (day := _day(match["day"])) and day != recorded:
                    text = Text(f"文书所写{zh}日期与就诊记录不符", f"The note's day of {en} is not the encounter's")
                    places = [
                        quote(case, sentence),
                        Line(f"{Text(zh, en).in_(case.locale)}: {recorded}", cited([source_of(encounter)])),
                    ]
                    yield issue(f"note-{en}-day", Severity.WARNING, text, places, _TRUE)


def _encounters_of(note: Resource) -> list[Resource]:
    own = note.get("encounter") or (note.get("context") or {}).get("encounter") or []
    return [e for e in (own if isinstance(own, list) else [own]) if isinstance(e, dict)]


def _parts(case: Case, said: Sequence[str]) -> Iterator[Issue]:
    """What the kind of note must have and has not: one issue that names all of it."""
    named, types = title(case.trigger), codes(case.trigger.get("type"))
    for kind in _KINDS:
        if not (re.search("|".join(kind["title"]), named, re.IGNORECASE) or types & set(kind["loinc"])):
            continue
        text = "\n".join(said)
        lacking = [p for p in kind["parts"] if not re.search("|".join(p["words"]), text, re.IGNORECASE)]
        if lacking:
            zh, en = "、".join(p["zh"] for p in lacking), ", ".join(p["en"] for p in lacking)
            missing = Text(f"文书缺少必备内容: {zh}", f"The note lacks mandatory parts: {en}")
            place = quote(case, named.split("\n")[0] or said[0])
            yield issue("note-part-missing", Severity.WARNING, missing, [place], kind["citation"])
        return


def _first(pattern: re.Pattern[str], said: Sequence[str]) -> Iterator[tuple[str, re.Match[str]]]:
    """The first sentence that matches, if any."""
    for sentence in said:
        if match := pattern.search(sentence):
            yield sentence, match
            return


def _day(written: str) -> str:
    """ "2026-03-01" for "2026年3月1日"; "" for no date of the calendar."""
    try:
        return date(*(int(n) for n in re.findall(r"\d+", written)[:3])).isoformat()
    except ValueError:
        return ""


def _person(case: Case) -> Line:
    patient = case.patient or {}
    born = str(patient.get("birthDate") or "-")
    return Line(f"{who(case.patient, case.now, case.locale)} ({born})", cited([source_of(patient)]))


def _allergen(case: Case, known: Resource) -> Line:
    return Line(allergy(known, case.locale) or display(known.get("code")), cited([source_of(known)]))


_KINDS = tomllib.loads(files("plugins").joinpath("note_parts.toml").read_text(encoding="utf-8"))["kind"]
