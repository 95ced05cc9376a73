"""States of a patient that rules ask for, found among the problems by code or by name."""

from __future__ import annotations

import re

from plugins.fhir_text import codes, display
from plugins.mentions import affirmed
from plugins.record_lines import real
from plugins.scenario import Case, Resource

#: SNOMED CT "Pregnant"; ICD-10 Z33 (pregnant state), Z34 and Z35 (supervision of pregnancy).
_PREGNANT_CODES = re.compile(r"77386006|Z3[345](?:\.\w+)?")
_PREGNANT = re.compile(r"(?i)\bpregnan|妊娠|怀孕|孕\d+周|宫内孕")
_NOT_NOW = re.compile(
    r"(?i)\bnot (?:\w+ )?pregnan|history of|previous|post-?partum|prevention of pregnan|pregnancy test"
    r"|非妊娠|未孕|既往|产后|避孕|史$"
)


def pregnancies(case: Case) -> list[Resource]:
    """The active problems of the case (query "problems") that say that the patient is pregnant; none for a man."""
    if (case.patient or {}).get("gender") == "male":
        return []
    return [r for r in real(case.get("problems")) if _pregnant(r)]


def _pregnant(problem: Resource) -> bool:
    name = display(problem.get("code"))
    if any(_PREGNANT_CODES.fullmatch(code) for code in codes(problem.get("code"))):
        return True
    return affirmed(name, _PREGNANT) and not _NOT_NOW.search(name)
