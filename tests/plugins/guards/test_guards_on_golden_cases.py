"""What clinicians wrote, and what repeats the record, is never cut: a guard that cuts the truth is switched off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.runner.guard_reference import Said
from pipelines.runner.verdicts import Judged, judged
from plugins import golden
from plugins.guarding import Answered
from plugins.manager import load
from plugins.prompting import chat, parse_answer
from plugins.scenario import Case, Risk, Scenario, Statement
from plugins.stand_in import stand_in_answer

LOADED = load()
FOLDER = Path(__file__).parents[1] / "golden"
SCENARIOS = {scenario.id.split(".")[1]: scenario for scenario in LOADED.scenarios.values()}
CASES = [(name, case) for name in SCENARIOS for case in golden.read(FOLDER / name)]
IDS = [f"{name}/{case.name}" for name, case in CASES]
ANSWERED = [(name, case) for name, case in CASES if case.answer is not None]
#: Of the case as a whole, and true of the cases called injected.
ABOUT_THE_CASE = "record-holds-instruction"


def answered(scenario: Scenario[Any], case: Case, text: str) -> Judged[Any]:
    prompt = scenario.prompt(case)
    talk = chat(prompt, case)
    answer, _ = parse_answer(scenario.output_model, text, talk.tags)
    return judged(LOADED.guards, answer, scenario=scenario, case=case, facts=prompt.facts[: len(talk.tags)])


@pytest.mark.parametrize(("name", "case"), ANSWERED, ids=[f"{name}/{case.name}" for name, case in ANSWERED])
def test_no_answer_of_a_golden_case_is_cut(name: str, case: golden.GoldenCase) -> None:
    result = answered(SCENARIOS[name], case.case, json.dumps(case.answer, ensure_ascii=False))
    assert result.cut == 0, result.counts


@pytest.mark.parametrize(("name", "case"), CASES, ids=IDS)
def test_what_repeats_a_line_of_the_record_is_never_cut(name: str, case: golden.GoldenCase) -> None:
    facts = [f for f in SCENARIOS[name].prompt(case.case).facts if f.text]
    said = Said.model_construct(statements=[Statement(text=f.text, sources=(f.source,)) for f in facts], coded=[])
    result = judged(LOADED.guards, said, scenario=SCENARIOS[name], case=case.case, facts=facts)
    injected = {key for key in result.counts if key[0] == "injection"}
    assert not result.cut or injected, result.counts
    assert {code for _, code, _ in result.counts.keys() - injected} <= {"record-holds-other"}


@pytest.mark.parametrize(("name", "case"), CASES, ids=IDS)
def test_a_stand_in_answer_is_cut_for_the_order_and_the_number_that_it_holds_and_nothing_else(
    name: str, case: golden.GoldenCase
) -> None:
    scenario = SCENARIOS[name]
    tags = chat(scenario.prompt(case.case), case.case).tags
    for seed in range(3):
        result = answered(scenario, case.case, stand_in_answer(scenario.output_model, tags, seed))
        cuts = {(guard, code) for guard, code, action in result.counts if action == "cut"}
        assert cuts <= {("injection", "statement-holds-instruction"), ("numbers", "number-unsupported")}


def test_only_cases_with_an_order_in_the_record_are_flagged_for_one() -> None:
    for name, case in ANSWERED:
        result = answered(SCENARIOS[name], case.case, json.dumps(case.answer, ensure_ascii=False))
        if ("injection", ABOUT_THE_CASE, "flag") in result.counts:
            assert "inject" in case.name, (name, case.name)


@given(said=st.text(max_size=80), fact=st.text(max_size=80))
def test_no_text_breaks_a_guard_and_every_verdict_has_a_declared_code(said: str, fact: str) -> None:
    statement = Statement(text=said, sources=("Observation/o1",))
    case = CASES[0][1].case
    facts = {"Observation/o1": [fact]}
    for guard in LOADED.guards:
        for verdict in guard.check(Answered("x.y", Risk.B, case, (statement,), Said(statements=[statement]), facts)):
            assert verdict.code in guard.codes
            assert verdict.text.zh
            assert verdict.text.en
            assert said not in verdict.text.en or len(said) < 4


@given(text=st.text(max_size=60))
def test_a_statement_that_is_its_fact_has_all_its_numbers_dates_sides_and_denials(text: str) -> None:
    statement = Statement(text=text, sources=("Observation/o1",))
    told = Answered(
        "x.y", Risk.B, CASES[0][1].case, (statement,), Said(statements=[statement]), {"Observation/o1": [text]}
    )
    for guard in LOADED.guards:
        if guard.id in ("numbers", "dates", "laterality", "negation", "drug-names", "codes", "support"):
            assert not guard.check(told), guard.id
