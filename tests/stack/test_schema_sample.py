"""The least value of a schema is one that the schema allows."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field

from pipelines.stack.schema_sample import UnsupportedSchema, least


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Statement(BaseModel):
    model_config = ConfigDict(extra="forbid")
    text: Annotated[str, Field(max_length=5)]
    sources: Annotated[list[Annotated[str, Field(min_length=20)]], Field(min_length=2, max_length=4)]


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    colour: Colour
    level: Annotated[int, Field(ge=1, le=5)]
    share: Annotated[float, Field(gt=0, le=1.5)]
    kind: Literal["only"]
    sure: bool
    none: None
    maybe: str | None
    statements: Annotated[list[Statement], Field(min_length=1)]
    more: list[Statement] = []


def test_the_least_answer_of_a_pydantic_model_is_one_of_its_values() -> None:
    answer = least(Answer.model_json_schema())
    Answer.model_validate(answer)
    assert answer["colour"] == "red"
    assert answer["statements"][0]["text"] == "stand"
    assert "more" not in answer


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string"},
        {"type": ["null", "string"]},
        {"type": "integer", "exclusiveMinimum": 3},
        {"type": "number", "maximum": -2},
        {"const": [1]},
        {"properties": {"a": {"type": "array"}}, "required": ["a"]},
        {"allOf": [{"type": "boolean"}]},
        {"type": "string", "format": "date"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"oneOf": [{"enum": ["x"]}, {"type": "null"}]}}},
    ],
)
def test_the_least_value_is_allowed(schema: dict[str, Any]) -> None:
    jsonschema.validate(least(schema), schema)


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "string", "pattern": "^a+$"}, "pattern"),
        ({"allOf": [{}, {}]}, "allOf"),
        ({"$ref": "https://elsewhere/"}, r"\$ref"),
        ({"type": "tuple"}, "tuple"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "without end"),
    ],
)
def test_what_cannot_be_made_up_is_named(schema: dict[str, Any], keyword: str) -> None:
    with pytest.raises(UnsupportedSchema, match=keyword):
        least(schema)
