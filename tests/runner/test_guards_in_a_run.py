"""A verdict is in the draft, in Provenance, in the row and in a metric; a guard that fails lets nothing through."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from pipelines.errors import ErrorClass
from plugins.guarding import Action, Answered, Verdict
from plugins.scenario import Text
from tests.canary import CANARY
from tests.runner.checking import Check
from tests.runner.fakes import answer
from tests.runner.seen import provenance, samples


class Broken(Check):
    verdict: Any = None

    def check(self, answered: Answered) -> Sequence[Verdict]:
        if self.verdict is None:
            raise ValueError(f"could not read {answered.case.trigger}")
        return [self.verdict]


def test_a_cut_and_a_flag_are_in_the_draft_in_provenance_in_the_row_and_in_a_metric(house: Any) -> None:
    house.guards = (Check(),)
    house.enter(80)
    house.model.says = lambda _: answer("cut this", "R1", "odd thing", "R1")
    house.carry()
    (risk,) = house.fhir.written("RiskAssessment")
    assert risk["note"] == [{"text": "odd thing"}]
    assert "A statement was cut: wrong" in risk["text"]["div"]
    assert "Check “odd thing”: odd" in risk["text"]["div"]
    assert "cut this" not in json.dumps(risk)
    assert "urn:careloom:guard:check:2" in provenance(house)["policy"]
    (row,) = house.rows()
    assert row.cut_statements == 1
    assert row.verdicts == {"check": {"wrong": {"cut": 1}, "odd": {"flag": 1}}}
    assert row.findings == 0
    assert samples(house, "careloom_guard_verdicts_total") == {
        '{"action": "cut", "code": "wrong", "guard": "check", "scenario": "in_visit.watch"}': 1.0,
        '{"action": "flag", "code": "odd", "guard": "check", "scenario": "in_visit.watch"}': 1.0,
    }


def test_a_flag_about_the_case_is_in_the_draft(house: Any) -> None:
    house.guards = (Check(),)
    house.enter(80)
    house.model.says = lambda _: '{"reasons": []}'
    house.carry()
    assert "nothing was said" in house.fhir.written("RiskAssessment")[0]["text"]["div"]


def test_rules_own_drafts_name_no_guard(house: Any) -> None:
    house.guards = (Check(),)
    house.enter(140)
    house.model.says = lambda _: '{"reasons": []}'
    house.carry()
    rules, model = house.fhir.written("Provenance")
    assert not [policy for policy in rules["policy"] if ":guard:" in policy]
    assert [policy for policy in model["policy"] if ":guard:" in policy]


@pytest.mark.parametrize(
    "verdict",
    [
        None,
        Verdict(Action.FLAG, "undeclared", Text("", "")),
        Verdict(Action.CUT, "wrong", Text("", "")),
        Verdict(Action.CUT, "wrong", Text("", ""), 7),
    ],
)
def test_an_answer_that_a_guard_cannot_judge_is_not_let_through(house: Any, verdict: Verdict | None) -> None:
    house.guards = (type("B", (Broken,), {"verdict": verdict})(),)
    house.enter(80, note=[{"text": CANARY}])
    summary = house.carry()
    assert summary.errors == {ErrorClass.SCENARIO_ERROR: 1}
    (row,) = house.rows()
    assert "guard check failed" in row.error
    assert CANARY not in row.error
    assert house.fhir.written("RiskAssessment") == []
