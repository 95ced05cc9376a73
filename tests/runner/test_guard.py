"""What a model said is cut where nothing supports it, and refused where it is no answer."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from pipelines.errors import ErrorClass, StepFailed
from pipelines.guard import Guarded, guarded, numbers, supported
from pipelines.models.base import ChatAnswer
from plugins.scenario import Fact, Statement

CANARY = "Zanzibarov"
FACTS = [
    Fact("Observation/bp", "Blood pressure 182/95 mmHg, 2026-03-01"),
    Fact("Observation/k", "Potassium 7.20 mmol/L"),
    Fact("Condition/dm", "Type 2 diabetes"),
]
TAGS = {"R1": "Observation/bp", "R2": "Observation/k", "R3": "Condition/dm"}


class Said(BaseModel):
    model_config = ConfigDict(extra="forbid")

    level: Literal["urgent", "routine"]
    reasons: Annotated[tuple[Statement, ...], Field(max_length=4)] = ()


def answer(text: str, finish_reason: str = "stop") -> ChatAnswer:
    return ChatAnswer(text, finish_reason, 1, 1, 0.1, "m")


def said(*reasons: tuple[str, list[str]]) -> Guarded[Said]:
    body = {"level": "urgent", "reasons": [{"text": t, "sources": s} for t, s in reasons]}
    return guarded(Said, answer(json.dumps(body)), tags=TAGS, facts=FACTS)


def texts(result: Guarded[Said]) -> list[str]:
    return [reason.text for reason in result.answer.reasons]


def test_a_supported_statement_passes_and_cites_the_resource() -> None:
    result = said(("BP is 182/95", ["R1"]))
    assert result.cut == 0
    assert result.answer.reasons[0].sources == ("Observation/bp",)


def test_a_statement_whose_tag_does_not_exist_is_cut_and_counted() -> None:
    result = said(("High potassium", ["R9"]), ("Diabetes", ["R3"]))
    assert texts(result) == ["Diabetes"]
    assert result.cut == 1


def test_a_number_that_stands_in_another_fact_than_the_cited_one_has_no_support() -> None:
    assert said(("Potassium is 182", ["R2"])).cut == 1


def test_a_number_that_stands_nowhere_is_cut() -> None:
    assert said(("Give 40 mg at once", ["R2"])).cut == 1


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("Potassium 7.2", ["R2"]),
        ("血钾7.20 mmol/L", ["R2"]),
        ("血压 182/95", ["R1"]),
        ("3月1日血压偏高", ["R1"]),
        ("type 2 diabetes (T2DM), SpO2 and HbA1c are not recorded", ["R3"]),
    ],
)
def test_the_same_number_written_otherwise_and_digits_of_a_word_pass(text: str, tags: list[str]) -> None:
    assert said((text, tags)).cut == 0


def test_digits_glued_to_a_word_are_still_a_number() -> None:
    assert said(("BP210 is high", ["R1"])).cut == 1


def test_a_resource_that_the_statement_does_not_cite_is_cut_out_of_it() -> None:
    assert said(("Same as Patient/other", ["R3"])).cut == 1
    assert said(("See Condition/dm.", ["R3"])).cut == 0


def test_control_and_format_characters_are_stripped() -> None:
    result = said(("High\u0000 pres\u202esure\x07\nsince long", ["R1"]))
    assert texts(result) == ["High pressure since long"]


@pytest.mark.parametrize(
    ("text", "finish_reason"),
    [
        ('{"level": "urgent"', "length"),
        ('{"level": "urgent"}', "content_filter"),
        (CANARY, "stop"),
        ("", "stop"),
        (f'{{"level": "{CANARY}"}}', "stop"),
        (f'{{"level": "urgent", "{CANARY}": 1}}', "stop"),
        ('{"level": "urgent"} trailing', "stop"),
        ("[]", "stop"),
        ("[" * 50_000, "stop"),
    ],
)
def test_what_is_no_answer_is_refused_and_not_repeated(text: str, finish_reason: str) -> None:
    with pytest.raises(StepFailed) as caught:
        guarded(Said, answer(text, finish_reason), tags=TAGS, facts=FACTS)
    assert caught.value.error_class is ErrorClass.MODEL_INVALID_OUTPUT
    assert CANARY not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_statements_deep_inside_an_answer_are_checked_too() -> None:
    class Section(BaseModel):
        lines: tuple[Statement, ...]

    class Note(BaseModel):
        section: Section
        first: Statement | None = None

    lines = [{"text": "Potassium 99", "sources": ["R2"]}, {"text": "Diabetes", "sources": ["R9"]}]
    note = Note.model_validate({"section": {"lines": lines}, "first": {"text": "9 days", "sources": ["R3"]}})
    result: Any = guarded(Note, answer(note.model_dump_json()), tags=TAGS, facts=FACTS)
    assert result.answer.first is None
    assert result.answer.section.lines == ()
    assert result.cut == 3


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1,000 mL", {"1000"}),
        ("3,4 and 5", {"3", "4", "5"}),
        ("7.20", {"7.2"}),
        ("１２．５", {"12.5"}),
        ("5.6×10⁹/L", {"5.6", "10"}),
        ("v1.2.3", set()),
        ("no. 2026-03-01", {"2026", "3", "1"}),
        ("none", set()),
    ],
)
def test_numbers_are_read_as_a_person_reads_them(text: str, found: set[str]) -> None:
    assert numbers(text) == {Decimal(number) for number in found}


@given(st.text(max_size=60))
def test_no_text_breaks_the_reading_of_numbers(text: str) -> None:
    numbers(text)


@given(st.text(max_size=60))
def test_a_statement_that_repeats_its_fact_is_always_supported(text: str) -> None:
    statement = Statement(text=text, sources=("Condition/x",))
    if "/" not in text:
        assert supported(statement, {"Condition/x": [text]})
