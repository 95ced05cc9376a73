"""Panels, steps, routes, guards, passages and hooks on the whole way of a run: what is written and counted."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from pipelines.batch import Outcome
from pipelines.config import Model
from pipelines.errors import ErrorClass, StepFailed
from pipelines.ledger.fold import fold_all
from pipelines.ledger.snapshot import snapshot
from plugins.counters import Counter, Increment
from plugins.guarding import Action, Answered, Guard, Verdict
from plugins.lifecycle import Hooked
from plugins.model_backend import ChatAnswer, ChatRequest
from plugins.panel import PanelAnswer
from plugins.scenario import (
    FIRST,
    Case,
    Draft,
    Fact,
    Finding,
    KnowledgeQuery,
    Passage,
    Prompt,
    Statement,
    Step,
    Text,
)

CANARY = "Zanzibarov"


class Check(Guard):
    """Cuts what says "cut", flags what says "odd", and flags a case without statements."""

    id = "check"
    version = "2"
    codes = frozenset({"wrong", "odd", "silent"})

    def check(self, answered: Answered) -> Sequence[Verdict]:
        assert all(answered.cited(statement) for statement in answered.statements)
        found = []
        for n, statement in enumerate(answered.statements):
            if "cut" in statement.text:
                found.append(Verdict(Action.CUT, "wrong", Text("错", "wrong"), n))
            if "odd" in statement.text:
                found.append(Verdict(Action.FLAG, "odd", Text("可疑", "odd"), n))
        if not answered.statements:
            found.append(Verdict(Action.FLAG, "silent", Text("无陈述", "nothing was said")))
        return found


class Broken(Check):
    verdict: Any = None

    def check(self, answered: Answered) -> Sequence[Verdict]:
        if self.verdict is None:
            raise ValueError(f"could not read {answered.case.trigger}")
        return [self.verdict]


@pytest.fixture
def models(house: Any) -> Any:
    """`models("a", "b", routing={...})` configures fakes of these names; returns name -> fake."""
    fake = type(house.model)

    def make(*names: str, routing: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        entries = tuple(Model(name=name, kind="fake", version=f"v-{name}", **more) for name in names)
        house.config = type(house.config).model_validate(
            {**{k: getattr(house.config, k) for k in type(house.config).model_fields}, "models": entries,
             "routing": routing}
        )  # fmt: skip
        house.others = {name: fake() for name in names}
        return dict(house.others)

    return make


def samples(house: Any, name: str) -> dict[str, float]:
    fold_all(house.engine)
    return {json.dumps(s.labels, sort_keys=True): s.value for s in snapshot(house.engine).samples if s.name == name}


def provenance(house: Any) -> Any:
    return house.fhir.written("Provenance")[-1]


# --- guards -----------------------------------------------------------------------------------------------------------


def test_a_cut_and_a_flag_are_in_the_draft_in_provenance_in_the_row_and_in_a_metric(house: Any, answer: Any) -> None:
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


# --- routes and costs -------------------------------------------------------------------------------------------------


def test_a_route_asks_its_model_and_the_draft_names_it(house: Any, models: Any) -> None:
    fakes = models("ward", routing={"in_visit": "ward"}, cost_per_1k_prompt_tokens=10.0, currency="CNY")
    house.enter(80)
    house.carry()
    assert (len(house.model.asked), len(fakes["ward"].asked)) == (0, 1)
    (device,) = house.fhir.written("Device")
    assert (device["deviceName"][0]["name"], device["version"][0]["value"]) == ("ward", "v-ward")
    assert house.rows()[0].model == "ward"
    assert samples(house, "careloom_model_cost_total") == {
        '{"currency": "CNY", "model": "ward", "scenario": "in_visit.watch"}': pytest.approx(1.0)
    }
    assert samples(house, "careloom_model_tokens_total") == {
        '{"gen_ai_token_type": "input", "model": "ward", "scenario": "in_visit.watch"}': 100.0,
        '{"gen_ai_token_type": "output", "model": "ward", "scenario": "in_visit.watch"}': 20.0,
    }


def test_the_next_of_a_route_is_asked_where_the_first_is_switched_off(house: Any, models: Any) -> None:
    fakes = models("one", "two", routing={"in_visit.watch": ["one", "two"]})
    house.ledger.switch_off("model", "one", by="dr", why="recall")
    house.enter(80)
    house.carry()
    assert (len(fakes["one"].asked), len(fakes["two"].asked)) == (0, 1)


def test_tokens_of_a_try_that_failed_are_counted_with_those_of_the_one_that_did_not(house: Any) -> None:
    house.enter(80)
    house.model.says = lambda _: "no JSON"
    house.carry()
    assert house.rows()[0].asked["fake-model"]["requests"] == 2
    house.model.says = lambda _: '{"reasons": []}'
    house.wake()
    house.carry()
    assert house.rows()[0].asked["fake-model"]["prompt_tokens"] == 300
    assert house.rows()[0].prompt_tokens == 100
    assert samples(house, "careloom_model_requests_total") == {
        '{"model": "fake-model", "scenario": "in_visit.watch"}': 3.0
    }


# --- panel ------------------------------------------------------------------------------------------------------------


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


def test_a_panels_answers_are_kept_apart_and_the_reader_is_told_that_they_differ(
    house: Any, models: Any, answer: Any
) -> None:
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


def test_what_a_guard_says_of_a_panel_names_the_model(house: Any, models: Any, answer: Any) -> None:
    on_panel(house)
    house.guards = (Check(),)
    fakes = models("a", "b", routing={"in_visit": ["a", "b"]})
    fakes["a"].says = fakes["b"].says = lambda _: answer("odd thing", "R1")
    house.enter(80)
    house.carry()
    text = house.fhir.written("RiskAssessment")[0]["text"]["div"]
    assert "a: Check “odd thing”" in text
    assert "b: Check “odd thing”" in text


# --- steps ------------------------------------------------------------------------------------------------------------


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


def test_a_second_question_follows_from_the_first_answer_and_both_are_guarded_and_paid_for(
    house: Any, answer: Any
) -> None:
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


# --- knowledge --------------------------------------------------------------------------------------------------------


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


def test_passages_are_looked_up_shown_cited_and_stand_in_provenance_as_what_they_are(house: Any, answer: Any) -> None:
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


# --- lifecycle --------------------------------------------------------------------------------------------------------


def counting(**hooks: Any) -> Hooked:
    silent = {name: lambda **told: [] for name in ("before_infer", "after_infer", "on_failure")}
    relay = types.SimpleNamespace(**{f"careloom_{name}": hook for name, hook in (silent | hooks).items()})
    return Hooked("house", relay, {"tries": Counter("tries", "Tries."), "drafts": Counter("drafts", "Drafts.")})


def test_what_hooks_count_comes_through_the_ledger_once_with_failed_tries(house: Any) -> None:
    house.hooks = (
        counting(
            before_infer=lambda work: [[Increment("tries")]],
            after_infer=lambda inferred: [[Increment("drafts", by=inferred.drafts.count("RiskAssessment"))]],
            on_failure=lambda failed: [[Increment("tries", by=0 if failed.transient else 10)]],
        ),
    )
    house.enter(80)
    house.model.says = lambda _: "no JSON"
    house.carry()
    house.model.says = lambda _: '{"reasons": []}'
    house.wake()
    house.carry()
    fold_all(house.engine)
    assert samples(house, "careloom_plugin_house_tries_total") == {'{"scenario": "in_visit.watch"}': 12.0}
    assert samples(house, "careloom_plugin_house_drafts_total") == {'{"scenario": "in_visit.watch"}': 1.0}


def test_a_hook_that_fails_harms_no_row_and_is_counted(house: Any) -> None:
    def fails(**told: Any) -> Any:
        raise ValueError(CANARY)

    house.hooks = (counting(before_infer=fails, after_infer=fails),)
    house.enter(80)
    summary = house.carry()
    assert summary.outcomes == {Outcome.WRITTEN: 1}
    assert house.rows()[0].state == "written"
    assert sum(samples(house, "careloom_plugin_hook_errors_total").values()) == 2.0


def test_tensors_of_a_prompt_reach_the_model(house: Any) -> None:
    from plugins.tensors import Tensor

    tensor = Tensor("pixels", (2,), "FP32", (0.5, 1.0))
    watch = type(house.scenario)
    prompt = lambda self, case: Prompt("Look.", [Fact("Observation/o0", "pulse 80")], (tensor,))  # noqa: E731
    house.scenario = type("Looking", (watch,), {"prompt": prompt})()
    house.model.says = lambda _: ChatAnswer('{"reasons": []}', "stop", 0, 0, 0.1, "scan")
    house.enter(80)
    house.carry()
    assert house.model.asked[0].tensors == (tensor,)
