"""The conformance kit fails for what it is there to find."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from plugins import golden
from plugins.errors import AnswerInvalid, NotConformant
from plugins.pre_visit.triage import Triage
from plugins.scenario import FIRST, Case, Draft, Fact, Finding, KnowledgeQuery, Prompt, Severity, Step, Text
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


def stepped(**changes: Any) -> Any:
    """A triage that asks a second question where the first answer has reasons."""

    def next_prompt(self: Any, case: Case, step: Step, answers: Any) -> Prompt | None:
        return self.prompt(case) if answers[FIRST].reasons else None

    return type(
        "Stepped", (Triage,), {"steps": (Step("again", Triage.output_model),), "next_prompt": next_prompt} | changes
    )()


def panelled(**changes: Any) -> Any:
    def drafts_of_panel(self: Any, case: Case, answer: Any, findings: Any) -> Any:
        return self.drafts(case, next(iter(answer.answers.values())), findings)

    return type("Panelled", (Triage,), {"panel": True, "drafts_of_panel": drafts_of_panel} | changes)()


def answered(seed: int) -> dict[str, Any]:
    return json.loads(stand_in_answer(Triage.output_model, ["R1"], seed))  # type: ignore[no-any-return]


def recorded(expect: Any, **said: Any) -> golden.GoldenCase:
    return golden.GoldenCase("one", "about", CASE, None, expect, **said)


def test_a_recorded_answer_leads_to_a_step_or_past_it() -> None:
    reasons = {**answered(0), "reasons": [{"text": "chest pain", "sources": ["R1"]}]}
    asked = {"first": reasons, "again": reasons}
    outcome = golden.check(stepped(), recorded({"asked": ["first", "again"]}, answers=asked))
    assert [each.name for each in outcome.asked] == ["first", "again"]
    past = {"first": {**reasons, "reasons": []}}
    golden.check(stepped(), recorded({"asked": ["first"]}, answers=past))
    with pytest.raises(NotConformant, match="step 'again' is answered, and was not asked"):
        golden.check(stepped(), recorded({}, answers={**past, "again": reasons}))
    with pytest.raises(NotConformant, match="'agian' is no question of the scenario; it has first, again"):
        golden.check(stepped(), recorded({}, answers={"agian": reasons}))


def test_garbage_at_a_later_step_is_no_answer() -> None:
    reasons = {**answered(0), "reasons": [{"text": "chest pain", "sources": ["R1"]}]}
    with pytest.raises(AnswerInvalid):
        golden.check(stepped(), recorded({}, answers={"first": reasons, "again": {"odd": 1}}))


def test_a_recorded_panel_differs_and_lacks_a_member() -> None:
    low, high = ({**answered(0), "acuity": acuity} for acuity in ("4", "2"))
    wanted = {"notices": ["panel.absent", "panel.disagreement"]}
    golden.check(panelled(), recorded(wanted, panel={"a": low, "b": high, "c": "model_timeout"}))
    golden.check(panelled(), recorded({"notices": []}, panel={"a": low, "b": low}))
    with pytest.raises(NotConformant, match="two members at least must answer"):
        golden.check(panelled(), recorded({}, panel={"a": low, "c": "model_timeout"}))
    with pytest.raises(NotConformant, match="the scenario asks no panel"):
        golden.check(Triage(), recorded({}, panel={"a": low, "b": low}))


def test_a_case_that_says_twice_what_is_answered_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.json"
    path.write_text(json.dumps({"expect": {}, "answer": {}, "panel": {"a": {}}}), encoding="utf-8")
    with pytest.raises(NotConformant, match=r"twice\.json: answer and panel: one of them says what is answered"):
        golden.read_case(path)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (stepped(next_prompt=lambda *_: "text"), "next_prompt() for step 'again' returned a str"),
        (stepped(drafts_of_steps=lambda *_: None), "drafts_of_steps() returned None"),
        (stepped(drafts_of_steps=lambda *_: [{}]), "drafts_of_steps() returned a dict among others; return Draft(...)"),
        (panelled(drafts_of_panel=lambda *_: "text"), "drafts_of_panel() returned a str"),
        (stepped(rules=lambda *_: "text"), "rules() returned a str"),
        (panelled(knowledge=(KnowledgeQuery("a"),), questions=lambda *_: {"a": [3]}), "questions()['a'] holds an int"),
        (panelled(knowledge=(KnowledgeQuery("a"),), questions=lambda *_: None), "questions() returned None"),
    ],
)
def test_what_the_runner_could_not_read_is_found(broken: Any, says: str) -> None:
    one = type("Kit", (ScenarioConformance,), {"scenario": broken, "cases": (CASE,)})()
    with pytest.raises(NotConformant, match=re.escape(says)):
        one.test_it_comes_to_its_end_in_every_case()


def test_stand_in_answers_are_the_same_for_a_seed_and_differ_between_seeds() -> None:
    answers = [stand_in_answer(Triage.output_model, ["R1", "R2"], seed) for seed in range(8)]
    assert answers == [stand_in_answer(Triage.output_model, ["R1", "R2"], seed) for seed in range(8)]
    assert len(set(answers)) > 4
