"""What a model said is cut where nothing supports it, and refused where it is no answer."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from pipelines.runner.guard import Guarded, guarded, supported
from plugins.model_backend import ChatAnswer
from plugins.scenario import Fact, Statement

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


@given(st.text(max_size=60))
def test_a_statement_that_repeats_its_fact_is_always_supported(text: str) -> None:
    statement = Statement(text=text, sources=("Condition/x",))
    if "/" not in text:
        assert supported(statement, {"Condition/x": [text]})
