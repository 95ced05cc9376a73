"""The conformance kit fails for what it is there to find."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from plugins import golden
from plugins.errors import NotConformant
from plugins.pre_visit.triage import Triage
from plugins.scenario import Case, Draft, Fact, Finding, Prompt, Severity, Text
from plugins.stand_in import stand_in_answer
from plugins.testing import ScenarioConformance, draft_problems, xhtml_fault

QUESTIONNAIRE = {
    "resourceType": "QuestionnaireResponse",
    "id": "q1",
    "status": "completed",
    "subject": {"reference": "Patient/p1"},
    "item": [{"linkId": "1", "text": "Problem?", "answer": [{"valueString": "chest pain, sweating"}]}],
}
CASE = Case(QUESTIONNAIRE, {"resourceType": "Patient", "id": "p1"}, {}, "en", datetime(2026, 11, 22, tzinfo=UTC))
TICKS = itertools.count()


def kit(**changes: Callable[..., Any]) -> Any:
    """The kit for a triage that was broken in one place."""
    broken = type("Broken", (Triage,), changes)()
    return type("Kit", (ScenarioConformance,), {"scenario": broken, "cases": (CASE,)})()


def spoilt(change: Callable[[Draft], Draft]) -> Callable[..., Any]:
    def drafts(self: Any, case: Case, answer: Any, findings: Any) -> Any:
        return [change(draft) for draft in Triage.drafts(self, case, answer, findings)]

    return drafts


def with_value(**values: Any) -> Callable[..., Any]:
    return spoilt(lambda draft: replace(draft, resource=draft.resource | values))


@pytest.mark.parametrize(
    ("says", "drafts"),
    [
        ("two drafts have one name", spoilt(lambda draft: replace(draft, name="same"))),
        ("is called 'approve'", spoilt(lambda draft: replace(draft, name="approve"))),
        ("has an id", with_value(id="1")),
        ("code-invalid", with_value(status="done")),
        ("refers to Condition/77", with_value(encounter={"reference": "Condition/77"})),
        ("source Condition/77", spoilt(lambda draft: replace(draft, sources=("Condition/77",)))),
        ("is empty", with_value(note=[])),
        ("holds <script>", with_value(text={"status": "generated", "div": "<div><script>x</script></div>"})),
        ("no identifier element", with_value(resourceType="Binary", contentType="text/plain")),
    ],
)
def test_a_wrong_draft_is_found(says: str, drafts: Callable[..., Any]) -> None:
    with pytest.raises(NotConformant, match=says):
        kit(drafts=drafts).test_every_draft_is_valid_and_names_only_what_the_case_holds()


def test_a_scenario_that_is_not_a_function_of_its_case_is_found() -> None:
    broken = spoilt(lambda draft: replace(draft, resource=draft.resource | {"description": str(next(TICKS))}))
    with pytest.raises(NotConformant, match="two different outcomes"):
        kit(drafts=broken).test_the_same_case_gives_the_same_drafts_and_is_not_changed()


def test_an_instruction_that_holds_data_of_the_case_is_found() -> None:
    def prompt(self: Any, case: Case) -> Prompt:
        return Prompt(f"Triage {case.resources} {case.patient}", [Fact("Patient/p1", "x")])

    with pytest.raises(NotConformant, match="depends on the case"):
        kit(prompt=prompt).test_the_instruction_is_short_static_and_in_both_languages()


def test_an_instruction_in_one_language_only_is_found() -> None:
    def prompt(self: Any, case: Case) -> Prompt:
        return Prompt("Triage this patient.", [Fact("Patient/p1", "x")])

    with pytest.raises(NotConformant, match="not Chinese"):
        kit(prompt=prompt).test_the_instruction_is_short_static_and_in_both_languages()


def test_a_rule_that_cites_what_the_case_does_not_hold_is_found() -> None:
    def rules(self: Any, case: Case) -> list[Finding]:
        return [Finding("x", Severity.INFO, Text("x", "x"), ("Condition/77",), "NICE")]

    with pytest.raises(NotConformant, match="cites what the case does not hold"):
        kit(rules=rules).test_red_flags_are_raised_without_any_answer()


@pytest.mark.parametrize(
    ("div", "fault"),
    [
        ("<div><p>a</p></div>", False),
        ("<div><p>a</div></p>", True),
        ("<div>a", True),
        ("<div></div>", True),
        ("<div>1 < 2</div>", True),
        ('<div onload="x">a</div>', True),
        ("<div><img>a</div>", True),
    ],
)
def test_a_narrative_that_is_not_plain_balanced_xhtml_is_found(div: str, fault: bool) -> None:
    assert bool(xhtml_fault(div)) is fault


def test_a_good_draft_has_no_problem() -> None:
    outcome = golden.run(Triage(), CASE)
    known = {"QuestionnaireResponse/q1", "Patient/p1", "urn:careloom:device"}
    known |= {f"urn:careloom:draft:{draft.name}" for draft in outcome.drafts}
    assert [problem for draft in outcome.drafts for problem in draft_problems(draft, known)] == []


def test_a_golden_case_that_comes_out_otherwise_says_what_differs() -> None:
    expect = {"findings": [], "says": ["nothing of this"], "values": {"acuity": {"status": "final"}}}
    with pytest.raises(NotConformant) as caught:
        golden.check(Triage(), golden.GoldenCase("one", "about", CASE, None, expect))
    assert "findings are ['chest-pain-acs'], expected []" in str(caught.value)
    assert "does not say 'nothing of this'" in str(caught.value)
    assert "acuity.status is 'preliminary', expected 'final'" in str(caught.value)


def test_stand_in_answers_are_the_same_for_a_seed_and_differ_between_seeds() -> None:
    answers = [stand_in_answer(Triage.output_model, ["R1", "R2"], seed) for seed in range(8)]
    assert answers == [stand_in_answer(Triage.output_model, ["R1", "R2"], seed) for seed in range(8)]
    assert len(set(answers)) > 4
