"""The model that a route names is asked, with all that the prompt holds, and what it cost is counted."""

from __future__ import annotations

from typing import Any

import pytest

from plugins.model_backend import ChatAnswer
from plugins.scenario import Fact, Prompt
from tests.runner.seen import samples


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
