"""An output model with which a model could go on for ever is refused, with the place and the remedy."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from plugins.errors import ScenarioRefused
from plugins.output_schema import check_bounded
from plugins.scenario import Statement


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Short(Statement):
    text: Annotated[str, Field(max_length=10)]


class Good(Closed):
    kind: Literal["a", "b"]
    yes: bool
    said: Annotated[list[Short], Field(max_length=2)]
    maybe: Short | None = None
    level: Annotated[int, Field(ge=0, le=3)]


class UnboundedString(Closed):
    note: str


class UnboundedStatement(Closed):
    said: Annotated[list[Statement], Field(max_length=2)]


class UnboundedList(Closed):
    said: list[Short]


class UnboundedNumber(Closed):
    level: int


class FreeForm(Closed):
    more: dict[str, str]


class Anything(Closed):
    more: Any


class ExtraKeys(BaseModel):
    kind: Literal["a"]


class Uncuttable(Closed):
    said: Short


class Pattern(Closed):
    code: Annotated[str, Field(max_length=3, pattern="[a-z]+")]


class Recursive(Closed):
    inner: Recursive | None = None


def test_a_bounded_model_passes() -> None:
    check_bounded(Good)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (UnboundedString, "UnboundedString.note: an unbounded string"),
        (UnboundedStatement, "said[].text: an unbounded string"),
        (UnboundedList, "said: an unbounded list"),
        (UnboundedNumber, "level: an unbounded number"),
        (FreeForm, "more: open to any key"),
        (Anything, "more: of no single type"),
        (ExtraKeys, "open to any key"),
        (Uncuttable, "must be optional or stand in a list"),
        (Pattern, "pattern: not enforced"),
        (Recursive, "recursive"),
    ],
)
def test_what_is_unbounded_is_refused_with_its_place(model: type[BaseModel], says: str) -> None:
    with pytest.raises(ScenarioRefused) as caught:
        check_bounded(model)
    assert says in str(caught.value)
