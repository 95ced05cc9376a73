"""A person is asked to decide on what a model drafted: by one Task, which is no draft, and only where they are to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import pytest

from fhir_adapters.drafts import IDENTITY_TAG
from fhir_adapters.provenance import Author
from pipelines.ledger import Match
from pipelines.ledger.replaying import Wanted
from pipelines.runner.write_back import pack, unpack
from plugins.scenario import Autonomy
from tests.runner.watch import Watch


class Adviser(Watch):
    """Gives advice that nobody has to decide on."""

    autonomy: ClassVar[Autonomy] = Autonomy.ADVISE


def test_a_model_s_draft_comes_with_a_task_in_the_house_s_language(house: Any) -> None:
    house.enter(80)
    house.carry()
    [task] = house.fhir.written("Task")
    [risk] = [reference for reference in house.fhir.resources if reference.startswith("RiskAssessment/new")]
    assert task["description"] == "Please accept, edit or reject this AI draft: Watch"
    assert (task["focus"]["reference"], task["for"]["reference"]) == (risk, "Patient/p1")
    [row] = house.rows()
    assert house.fhir.resources[row.approval] == task
    assert (row.created, row.recognised, row.written) == (1, 0, [risk])
    assert (row.model, row.model_version) == ("fake-model", "7")


def test_the_task_is_worded_in_chinese_where_the_house_is(house: Any) -> None:
    house.config = house.config.model_copy(update={"locale": "zh"})
    house.enter(80)
    house.carry()
    [task] = house.fhir.written("Task")
    assert task["description"].endswith("观察")


def test_what_rules_alone_drafted_asks_for_no_approval(house: Any) -> None:
    house.enter(140)
    house.carry()
    rules, model = house.fhir.transactions
    kinds = [[entry["resource"]["resourceType"] for entry in bundle["entry"]] for bundle in (rules, model)]
    assert kinds == [["Device", "Flag", "Provenance"], ["Device", "RiskAssessment", "Task", "Provenance"]]


def test_a_scenario_that_advises_asks_for_none(house: Any) -> None:
    house.scenario = Adviser()
    house.enter(80)
    house.carry()
    assert house.fhir.written("Task") == []
    assert house.rows()[0].approval is None


def test_a_lost_answer_asks_nobody_twice(house: Any) -> None:
    house.enter(80)
    house.fhir.lose_answer = True
    house.carry()
    house.wake()
    house.carry()
    [row] = house.rows()
    assert len(house.fhir.written("Task")) == 1
    assert (row.created, row.recognised) == (0, 1)
    assert house.fhir.resources[row.approval]["resourceType"] == "Task"


@pytest.mark.parametrize("searches", [True, False])
def test_a_replay_recognises_the_drafts_and_not_the_task_as_one_of_them(house: Any, searches: bool) -> None:
    house.enter(80)
    house.carry()
    [first] = house.rows()
    if searches:
        house.fhir.found["Provenance"] = [
            p for p in house.fhir.written("Provenance") if p["meta"]["tag"][0]["system"] == IDENTITY_TAG
        ]
    number = house.ledger.begin_replay(by="wu", why="a drill", chosen={})
    house.ledger.add_replays(number, [Wanted(first.event_id, Match("in_visit.watch", "1", "in_visit"))])
    house.carry()
    again = house.rows()[1]
    assert (again.state, again.created, again.recognised, again.written) == ("written", 0, 1, first.written)
    assert again.approval == (None if searches else first.approval)
    assert len(house.fhir.written("Task")) == 1


def test_an_outbox_of_a_release_without_approvals_is_written_as_it_was_meant(house: Any) -> None:
    house.enter(80)
    house.fhir.lose_answer = True
    house.carry()
    [row] = house.rows()
    before = {key: value for key, value in row.drafts.items() if key != "approval"}
    assert unpack(before).approval is None
    assert pack(unpack(row.drafts)) == row.drafts
    assert row.drafts["author"].keys() == {"kind", "name", "version", "registration_number", "stand_in"}
    told = replace(unpack(row.drafts), author=Author("model", "m", "1", limits="Not for children"))
    assert unpack(pack(told)).author == told.author
