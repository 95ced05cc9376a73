"""Passages are looked up for a prompt and cited as what they are; a source that fails fails the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from plugins.scenario import Case, Draft, Fact, Finding, KnowledgeQuery, Passage, Prompt
from tests.canary import CANARY
from tests.runner.fakes import answer
from tests.runner.seen import provenance


class Shelf:
    def __init__(self, id_: str, *found: str, error: Exception | None = None) -> None:
        self.id = id_
        self.found = found
        self.error = error
        self.asked: list[tuple[str, str, int]] = []

    def search(self, question: str, *, locale: Any, cap: int) -> list[Passage]:
        self.asked.append((question, locale, cap))
        if self.error:
            raise self.error
        return [Passage(f"{self.id}#{one}", one, "t", "urn:x", "2026", "own", "en") for one in self.found]


def reading(house: Any) -> None:
    def prompt(self: Any, case: Case) -> Prompt:
        self.cases.append(case)
        return Prompt("Say.", [Fact(passage.source, passage.text) for passage in case.passages["care"]])

    def drafts(self: Any, case: Case, answer: Any, findings: Sequence[Finding]) -> Sequence[Draft]:
        (draft,) = super(watch, self).drafts(case, answer, ())
        return [Draft(draft.name, draft.resource, tuple(s for r in answer.reasons for s in r.sources))]

    def questions(self: Any, case: Case) -> Mapping[str, str]:
        return {"care": f"pulse {case.trigger['id']}"}

    knowledge = (KnowledgeQuery("care", cap=2), KnowledgeQuery("none"))
    watch = type(
        "Reading", (type(house.scenario),),
        {"prompt": prompt, "drafts": drafts, "questions": questions, "knowledge": knowledge},
    )  # fmt: skip
    house.scenario = watch()


def test_passages_are_looked_up_shown_cited_and_stand_in_provenance_as_what_they_are(house: Any) -> None:
    reading(house)
    one, other = Shelf("one", "drink water"), Shelf("two", "drink water", "rest", "sleep")
    house.knowledge = (one, other)
    house.model.says = lambda _: answer("drink water", "R1")
    house.enter(80)
    house.carry()
    (case,) = house.scenario.cases
    assert [passage.id for passage in case.passages["care"]] == ["one#drink water", "two#drink water"]
    assert case.passages["none"] == ()
    assert one.asked == [("pulse o0", "en", 2)]
    entities = [entity["what"] for entity in provenance(house)["entity"]]
    assert {"identifier": {"system": "urn:careloom:passage", "value": "one#drink water"}} in entities


def test_a_source_that_fails_fails_the_row_since_nothing_found_would_be_a_lie(house: Any) -> None:
    reading(house)
    house.knowledge = (Shelf("one", error=OSError(CANARY)),)
    house.enter(80)
    house.carry()
    (row,) = house.rows()
    assert row.error_class == "scenario_error"
    assert "knowledge source one failed: OSError" in row.error
    assert CANARY not in row.error
