"""A second question follows from the first answer; both answers are guarded and paid for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from plugins.model_backend import ChatRequest
from plugins.scenario import FIRST, Case, Fact, Finding, Prompt, Statement, Step
from tests.runner.checking import Check
from tests.runner.fakes import answer


class More(BaseModel):
    model_config = ConfigDict(extra="forbid")
    notes: Annotated[tuple[Statement, ...], Field(max_length=2)]


def with_steps(house: Any, *, second: bool = True) -> list[Mapping[str, Any]]:
    given: list[Mapping[str, Any]] = []

    def next_prompt(self: Any, case: Case, step: Step, answers: Mapping[str, Any]) -> Prompt | None:
        if step.name == "skipped" or not second:
            return None
        return Prompt(f"Go on after {len(answers[FIRST].reasons)}.", [Fact("Observation/o0", "pulse 80")])

    def drafts_of_steps(self: Any, case: Case, answers: Mapping[str, Any], findings: Sequence[Finding]) -> Any:
        given.append(answers)
        return self.drafts(case, answers[FIRST], ())

    steps = (Step("skipped", More), Step("more", More, max_tokens=77))
    house.scenario = type(
        "Steps", (type(house.scenario),),
        {"steps": steps, "next_prompt": next_prompt, "drafts_of_steps": drafts_of_steps},
    )()  # fmt: skip
    return given


def test_a_second_question_follows_from_the_first_answer_and_both_are_guarded_and_paid_for(house: Any) -> None:
    given = with_steps(house)
    house.guards = (Check(),)

    def says(request: ChatRequest) -> str:
        if "Go on" in request.messages[0]["content"]:
            return json.dumps({"notes": [{"text": "cut this", "sources": ["R1"]}, {"text": "fine", "sources": ["R1"]}]})
        return answer("pulse is high", "R1", "cut that", "R1")

    house.model.says = says
    house.enter(80)
    house.carry()
    first, second = house.model.asked
    assert "Go on after 1." in second.messages[0]["content"]
    assert (second.max_tokens, "notes" in second.schema["properties"]) == (77, True)
    assert first.request_id != second.request_id
    (answers,) = given
    assert list(answers) == [FIRST, "more"]
    assert [note.text for note in answers["more"].notes] == ["fine"]
    (row,) = house.rows()
    assert (row.prompt_tokens, row.completion_tokens, row.model_seconds, row.cut_statements) == (200, 40, 1.0, 2)


def test_a_step_that_is_left_out_is_not_asked(house: Any) -> None:
    given = with_steps(house, second=False)
    house.enter(80)
    house.carry()
    assert len(house.model.asked) == 1
    assert list(given[0]) == [FIRST]
