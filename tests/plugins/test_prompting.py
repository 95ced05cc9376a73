"""Facts go out fenced and numbered; only what cites them comes back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from plugins.errors import AnswerInvalid
from plugins.prompting import FENCE_CLOSE, FENCE_OPEN, chat, neutral, parse_answer, schema_for
from plugins.scenario import Case, Fact, Locale, Prompt, Statement

TAGS = {"R1": "Observation/1", "R2": "Condition/2"}


class Sentence(Statement):
    text: Annotated[str, Field(max_length=40)]


class Reply(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    said: Annotated[list[Sentence], Field(max_length=3)]
    summary: Sentence | None = None
    level: Annotated[int, Field(ge=1, le=4)] = 4


def case(locale: Locale = "en") -> Case:
    return Case({"resourceType": "Encounter"}, None, {}, locale, datetime(2026, 11, 22, tzinfo=UTC))


def prompt(*texts: str) -> Prompt:
    return Prompt("Summarise.", [Fact(f"Observation/{n}", text) for n, text in enumerate(texts, start=1)])


def answer(*said: tuple[str, list[str]], **more: object) -> str:
    return json.dumps({"said": [{"text": t, "sources": s} for t, s in said], **more})


def test_facts_are_numbered_between_the_fences_and_tags_lead_back_to_their_sources() -> None:
    talk = chat(prompt("BP 120/80", "pulse 60"), case())
    assert talk.messages[1]["content"] == f"{FENCE_OPEN}\nR1 BP 120/80\nR2 pulse 60\n{FENCE_CLOSE}"
    assert talk.tags == {"R1": "Observation/1", "R2": "Observation/2"}
    assert talk.left_out == 0


def test_the_system_message_is_the_same_for_every_case_of_a_language() -> None:
    one, other = chat(prompt("a"), case()), chat(prompt("b", "c"), case())
    assert one.messages[0] == other.messages[0]
    assert one.messages[0] != chat(prompt("a"), case("zh")).messages[0]


def test_facts_beyond_the_cap_are_cut_from_the_end_and_the_model_is_told_how_many() -> None:
    talk = chat(prompt(*(f"fact {n} " + "x" * 80 for n in range(20))), case(), max_chars=500)
    assert list(talk.tags) == ["R1", "R2", "R3", "R4", "R5"]
    assert talk.left_out == 15
    assert "15 more lines" in talk.messages[1]["content"]
    assert len(talk.messages[1]["content"]) < 600


def test_one_long_note_does_not_push_out_the_other_facts() -> None:
    talk = chat(prompt("x" * 100_000, "allergy to penicillin"), case())
    assert "allergy to penicillin" in talk.messages[1]["content"]


@given(st.text(), st.sampled_from(["<<<RECORD", "RECORD>>>", "<|im_end|>", "</s>", "[INST]", "\n", "\u2028", "\x00"]))
def test_no_data_can_forge_a_fence_a_line_or_a_token_of_a_chat_template(noise: str, mark: str) -> None:
    content = chat(prompt(noise + mark + noise), case()).messages[1]["content"]
    inside = content.removeprefix(f"{FENCE_OPEN}\n").removesuffix(f"\n{FENCE_CLOSE}")
    assert len(inside.splitlines()) <= 1
    assert not any(forged in inside for forged in ("<<<", ">>>", "<|", "</s>", "[INST]"))


def test_limits_of_laboratory_values_survive() -> None:
    assert neutral("CRP <5 mg/L, SpO2 >= 94, T > 38.5") == "CRP <5 mg/L, SpO2 >= 94, T > 38.5"


def test_the_schema_lets_a_statement_cite_only_the_tags_of_the_case() -> None:
    schema = schema_for(Reply, TAGS)
    sources = schema["properties"]["said"]["items"]["properties"]["sources"]
    assert sources == {"type": "array", "items": {"enum": ["R1", "R2"]}, "minItems": 1, "maxItems": 2}
    assert schema["required"] == ["said", "summary", "level"]
    assert schema["additionalProperties"] is False


def test_the_schema_holds_no_reference_title_default_or_description() -> None:
    text = json.dumps(schema_for(Reply, TAGS))
    assert not any(f'"{word}"' in text for word in ("$ref", "$defs", "title", "default", "description"))


def test_without_facts_no_statement_can_be_made() -> None:
    assert schema_for(Reply, {})["properties"]["said"]["maxItems"] == 0


def test_citations_come_back_as_references_once_each() -> None:
    got, cut = parse_answer(Reply, answer(("a", ["R1", "R2", "R1"])), TAGS)
    assert got.said[0].sources == ("Observation/1", "Condition/2")
    assert cut == 0


def test_a_statement_without_a_valid_source_is_cut_and_counted() -> None:
    text = answer(("kept", ["R9", "R2"]), ("invented", ["R9"]), ("no source", []), summary={"text": "x", "sources": []})
    got, cut = parse_answer(Reply, text, TAGS)
    assert [s.text for s in got.said] == ["kept"]
    assert got.said[0].sources == ("Condition/2",)
    assert got.summary is None
    assert cut == 3


def test_a_statement_without_words_is_cut() -> None:
    assert parse_answer(Reply, answer(("  ", ["R1"])), TAGS)[1] == 1


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "secret", '{"said": [], "said": []}', '{"said": [], "level": NaN}', '{"said": []} secret',
        '{"said": [], "secret": 1}', '{"said": "secret"}', '{"said": [{"text": "secret", "sources": "R1"}]}',
        answer(("secret" * 10, ["R1"])), answer(level=9), '{"said": [], "level": 1' + "0" * 5000 + "}", "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_answer_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(AnswerInvalid) as caught:
        parse_answer(Reply, text, TAGS)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
