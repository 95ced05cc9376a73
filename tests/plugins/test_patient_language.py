"""The patient's language comes from the record, a message's from its letters; who needs a translator is said."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from plugins.patient_language import language_facts, spoken, translator_needed, written_in
from plugins.scenario import Case


def case(*languages: tuple[str, str, bool]) -> Case:
    spoken_ = [{"language": {"coding": [{"code": c}], "text": t}, "preferred": p} for c, t, p in languages]
    patient: dict[str, Any] = {"resourceType": "Patient", "id": "p1", "communication": spoken_}
    return Case({"resourceType": "Task", "id": "t1"}, patient, {}, "zh", datetime(2026, 11, 22, tzinfo=UTC))


@pytest.mark.parametrize(
    ("languages", "expected"),
    [
        ((), "zh"),
        ((("en-US", "English", True),), "en"),
        ((("es", "Spanish", True),), "zh"),
        ((("zh-CN", "Chinese", False), ("en", "English", True)), "en"),
        ((("es", "Spanish", True), ("en", "English", False)), "en"),
    ],
)
def test_the_preferred_language_counts_first_and_the_house_speaks_for_those_it_does_not_know(
    languages: tuple[tuple[str, str, bool], ...], expected: str
) -> None:
    assert spoken(case(*languages)) == expected


def test_a_message_is_in_the_language_of_its_letters() -> None:
    assert written_in("What about 血压?", "en") == "zh"
    assert written_in("When?", "zh") == "en"
    assert written_in("12:30", "zh") == "zh"


def test_staff_are_told_when_the_patient_does_not_speak_what_was_written() -> None:
    (line,) = translator_needed(case(("es", "Spanish", True)), "zh")
    assert "Spanish" in line.text
    assert line.sources == ("Patient/p1",)
    assert translator_needed(case(("en", "English", True)), "en") == []
    assert translator_needed(case(), "en") == []
    assert [fact.text for fact in language_facts(case(("es", "Spanish", True)))] == ["患者语言: Spanish"]
