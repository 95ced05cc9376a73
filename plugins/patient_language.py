"""The language that a patient is written to in: one of the two that careloom speaks, and who needs a translator."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from plugins.fhir_text import Line, display, listed, source_of
from plugins.scenario import Case, Fact, Locale, Question, Resource, Text

_HAN = re.compile(r"[\u3400-\u9fff]")
_LATIN = re.compile(r"[A-Za-z]{2,}")
_SPOKEN: Mapping[str, Locale] = {"zh": "zh", "en": "en"}


def spoken(case: Case) -> Locale:
    """The patient's language where careloom speaks it (the preferred one first), else that of the house."""
    known = (_SPOKEN.get(_primary(tag)) for tag, _ in _languages(case.patient))
    return next(filter(None, known), case.locale)


def written_in(text: str, default: Locale) -> Locale:
    """The language of a patient's message; `default` where it cannot be told."""
    if _HAN.search(text):
        return "zh"
    return "en" if _LATIN.search(text) else default


def in_languages(words: str | Text, *languages: Locale) -> list[Question]:
    """The same question in each language, the first first: what one has no passage for is looked for in the next."""
    said = [Question(words if isinstance(words, str) else words.in_(language), language) for language in languages]
    return list(dict.fromkeys(said))


def language_facts(case: Case) -> list[Fact]:
    """The languages of the patient, preferred first, for a model that is to write in one; none where none is known."""
    names = ", ".join(dict.fromkeys(name for _, name in _languages(case.patient)))
    label = Text("患者语言", "patient's language").in_(case.locale)
    return [Fact(source_of(case.patient), f"{label}: {names}")] if case.patient and names else []


def translator_needed(case: Case, written: Locale) -> list[Line]:
    """A line for staff where a message came out in a language that the record does not give the patient."""
    languages = list(_languages(case.patient))
    if case.patient is None or not languages or any(_SPOKEN.get(_primary(tag)) == written for tag, _ in languages):
        return []
    name = languages[0][1]
    text = Text(f"患者语言为{name},发送前须翻译", f"The patient speaks {name}: translate before sending")
    return [Line(text.in_(case.locale), (source_of(case.patient),))]


def _primary(tag: str) -> str:
    return tag.split("-")[0].lower()


def _languages(patient: Resource | None) -> Iterator[tuple[str, str]]:
    """(BCP 47 tag, name) of each language of the patient, preferred ones first (Patient.communication)."""
    given = [c for c in listed(patient or {}, "communication") if isinstance(c, Mapping)]
    for entry in sorted(given, key=lambda c: c.get("preferred") is not True):
        language = entry.get("language")
        codings = listed(language, "coding") if isinstance(language, Mapping) else ()
        tag = next((str(c["code"]) for c in codings if isinstance(c, Mapping) and c.get("code")), "")
        if tag:
            yield tag, display(language, 40) or tag
