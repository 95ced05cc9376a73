"""Parts of a record that several notes show, as lines: each reads the query of its name and says where more was cut."""

from __future__ import annotations

from collections.abc import Iterable

from plugins.drafting import truncated_note
from plugins.fhir_text import Line, display, listed, source_of
from plugins.record_lines import condition, lines, observation, procedure, real, report
from plugins.scenario import Case, Resource


def reasons(resource: Resource) -> list[str]:
    """Why an Encounter or an Appointment takes place, each once."""
    named = [*listed(resource, "reasonCode"), *listed(resource, "reasonReference")]
    return list(dict.fromkeys(filter(None, (display(reason) for reason in named))))


def diagnoses(case: Case, limit: int) -> list[Line]:
    """Query "diagnoses": those of one encounter."""
    return lines(real(case.get("diagnoses")), lambda r: condition(r, case.locale), limit, case.locale)


def past(case: Case, limit: int) -> list[Line]:
    """Query "past": problems that are over."""
    return lines(real(case.get("past")), lambda r: condition(r, case.locale), limit, case.locale)


def operations(case: Case, limit: int) -> list[Line]:
    """Query "procedures"."""
    return lines(real(case.get("procedures")), procedure, limit, case.locale)


def vital_signs(case: Case, limit: int) -> list[Line]:
    """Query "vitals": the newest of each kind."""
    return [
        *lines(newest(case.get("vitals")), observation, limit, case.locale),
        *truncated_note(case, ["vitals"], case.locale),
    ]


def tests(case: Case, limit: int) -> list[Line]:
    """Queries "reports" (conclusions) and "labs" (the newest of each kind)."""
    results = lines(newest(case.get("labs")), observation, limit, case.locale)
    conclusions = lines(real(case.get("reports")), report, 6, case.locale)
    return [*conclusions, *results, *truncated_note(case, ["labs", "reports"], case.locale)]


def newest(observations: Iterable[Resource]) -> list[Resource]:
    """The newest of each kind (they come newest first), without what the record withdraws."""
    kept: dict[str, Resource] = {}
    for resource in real(observations):
        kept.setdefault(display(resource.get("code")) or source_of(resource), resource)
    return list(kept.values())
