"""Words out of FHIR and words into FHIR: nothing lost that matters, nothing that could do harm."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins import fhir_text
from plugins.fhir_text import Line, age_in_months, cited, clean, display, moment, narrative, who
from plugins.scenario import Case
from plugins.testing import xhtml_fault

NOW = datetime(2026, 11, 22, tzinfo=UTC)


@given(st.lists(st.tuples(st.text(), st.lists(st.text(), max_size=3)), max_size=3), st.sampled_from(["zh", "en"]))
def test_a_narrative_of_any_text_is_well_formed_and_plain(sections: list[tuple[str, list[str]]], locale: str) -> None:
    lines = [(title, [Line(text, ("Patient/1",)) for text in texts]) for title, texts in sections]
    div = narrative(lines, locale, head="head")["div"]  # type: ignore[arg-type]
    ET.fromstring(div)
    assert xhtml_fault(div) is None


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_clean_text_is_one_short_printable_line(text: str, limit: int) -> None:
    cleaned = clean(text, limit)
    assert len(cleaned) <= limit
    assert cleaned == cleaned.strip()
    assert cleaned.isprintable()
    assert clean(cleaned, limit) == cleaned


@pytest.mark.parametrize(
    ("concept", "words"),
    [
        ({"text": "Asthma", "coding": [{"display": "x"}]}, "Asthma"),
        ({"coding": [{"code": "J45"}, {"display": "Asthma"}]}, "Asthma"),
        ({"coding": [{"code": "J45"}]}, "J45"),
        ({"display": "Dr. A"}, "Dr. A"),
        ({}, ""),
        (None, ""),
        ("text", ""),
        ({"text": 5, "coding": "wrong"}, ""),
    ],
)
def test_a_concept_is_called_by_its_best_words(concept: object, words: str) -> None:
    assert display(concept) == words


@pytest.mark.parametrize(
    ("born", "months"),
    [("2026-11-22", 0), ("2026-08-23", 2), ("2026-08-22", 3), ("1980-05-01", 558), ("1980", 562), ("1980-05", 558),
     ("2999-01-01", None), ("1700-01-01", None), ("", None), ("1980-13-01", None), (None, None), ("May 1980", None)],
)  # fmt: skip
def test_age_counts_completed_months_and_is_unknown_rather_than_wrong(born: str | None, months: int | None) -> None:
    assert age_in_months({"resourceType": "Patient", "birthDate": born}, NOW) == months


def test_who_names_sex_and_age_and_nothing_else() -> None:
    patient = {"resourceType": "Patient", "gender": "female", "birthDate": "1980-05-01", "name": [{"family": "Li"}]}
    assert who(patient, NOW, "zh") == "女,46岁"
    assert who(patient | {"birthDate": "2026-06-01"}, NOW, "en") == "female, 5 months"
    assert who(None, NOW, "en") == "sex not recorded, age not recorded"


@pytest.mark.parametrize("value", ["2026", "2026-05", "not a date", "", None, 5, "2026-02-31"])
def test_a_partial_or_wrong_date_is_no_moment(value: object) -> None:
    assert moment(value) is None


def test_a_moment_without_zone_is_taken_as_utc() -> None:
    assert moment("2026-05-01") == datetime(2026, 5, 1, tzinfo=UTC)
    assert moment("2026-05-01T10:00:00+08:00") == datetime(2026, 5, 1, 2, tzinfo=UTC)


def test_only_literal_references_are_cited_once_each() -> None:
    assert cited(["Patient/1", "Patient/1", "Patient", "urn:uuid:x", "#c", "Patient/1 or 2", "x"]) == ("Patient/1",)


@pytest.mark.parametrize(
    ("patient", "trigger", "subject"),
    [
        ({"resourceType": "Patient", "id": "1"}, {"resourceType": "Encounter"}, "Patient/1"),
        (None, {"resourceType": "Encounter", "subject": {"reference": "Patient/2"}}, "Patient/2"),
        (None, {"resourceType": "Appointment", "participant": [{"actor": {"reference": "Patient/3"}}]}, "Patient/3"),
        (None, {"resourceType": "Encounter", "subject": {"reference": "Group/2"}}, None),
        (None, {"resourceType": "Encounter"}, None),
    ],
)
def test_the_subject_is_the_patient_read_or_whom_the_trigger_names(
    patient: dict[str, str] | None, trigger: dict[str, object], subject: str | None
) -> None:
    assert fhir_text.subject(Case(trigger, patient, {}, "en", NOW)) == subject
