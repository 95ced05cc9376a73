"""A panel's answers are kept apart, and the reader is told where they differ and who did not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.errors import ErrorClass, StepFailed
from plugins.panel import PanelAnswer
from plugins.scenario import Case, Finding
from tests.runner.checking import Check
from tests.runner.fakes import answer


def on_panel(house: Any) -> list[PanelAnswer[Any]]:
    """Make the house's scenario ask a panel; returns what it is given."""
    given: list[PanelAnswer[Any]] = []
    watch = type(house.scenario)

    def drafts_of_panel(self: Any, case: Case, answer: PanelAnswer[Any], findings: Sequence[Finding]) -> Any:
        given.append(answer)
        first = next(iter(answer.answers.values()))
        return self.drafts(case, first, [f for f in findings if f.code == "fast-pulse"])

    house.scenario = type("PanelWatch", (watch,), {"panel": True, "drafts_of_panel": drafts_of_panel})()
    return given


def test_a_panels_answers_are_kept_apart_and_the_reader_is_told_that_they_differ(house: Any, models: Any) -> None:
    given = on_panel(house)
    fakes = models("a", "b", routing={"in_visit": ["a", "b"]})
    fakes["a"].says = lambda _: answer("one", "R1", "two", "R1")
    fakes["b"].says = lambda _: answer("one", "R1")
    house.enter(80)
    house.carry()
    (panel,) = given
    assert {name: len(said.reasons) for name, said in panel.answers.items()} == {"a": 2, "b": 1}
    (risk,) = house.fhir.written("RiskAssessment")
    assert "The models disagree on reasons: a: 2; b: 1" in risk["text"]["div"]
    (device,) = house.fhir.written("Device")
    assert device["deviceName"][0]["name"] == "a+b"
    assert device["version"][0]["value"] == "a v-a; b v-b"
    (row,) = house.rows()
    assert (row.model, row.prompt_tokens) == ("a+b", 200)
    assert set(row.asked) == {"a", "b"}


def test_a_panel_goes_on_without_a_member_that_is_down_and_names_it(house: Any, models: Any) -> None:
    given = on_panel(house)
    fakes = models("a", "b", "c", "d", routing={"in_visit": ["a", "b", "c", "d"]})
    fakes["b"].says = lambda _: StepFailed(ErrorClass.MODEL_TIMEOUT, "slow")
    fakes["c"].says = lambda _: "garbage"
    house.ledger.switch_off("model", "d", by="dr", why="recall")
    fakes["a"].says = lambda _: '{"reasons": []}'
    house.enter(80)
    house.carry()
    assert house.rows()[0].state == "waiting"
    fakes["b"].says = lambda _: '{"reasons": []}'
    house.wake()
    house.carry()
    assert given[0].absent == {"d": "switched_off", "c": "model_invalid_output"}
    text = house.fhir.written("RiskAssessment")[0]["text"]["div"]
    assert "The model c did not answer (model_invalid_output)" in text
    assert "The model d did not answer (switched_off)" in text


def test_a_panel_of_one_waits_and_says_what_to_do(house: Any, models: Any) -> None:
    on_panel(house)
    models("a", routing={"in_visit": "a"})
    house.enter(80)
    house.carry()
    (row,) = house.rows()
    assert (row.state, row.error_class) == ("waiting", "model_unavailable")
    assert "[routing]" in row.error


def test_what_a_guard_says_of_a_panel_names_the_model(house: Any, models: Any) -> None:
    on_panel(house)
    house.guards = (Check(),)
    fakes = models("a", "b", routing={"in_visit": ["a", "b"]})
    fakes["a"].says = fakes["b"].says = lambda _: answer("odd thing", "R1")
    house.enter(80)
    house.carry()
    text = house.fhir.written("RiskAssessment")[0]["text"]["div"]
    assert "a: Check “odd thing”" in text
    assert "b: Check “odd thing”" in text
