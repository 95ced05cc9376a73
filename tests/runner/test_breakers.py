"""What is down is not asked, what is merely slow for one event is told from it, and rules run whatever is down."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from fhir_adapters.errors import FhirRejected, FhirUnavailable
from pipelines.errors import ErrorClass, StepFailed
from pipelines.ledger.breaking import BreakerState
from pipelines.runner.batch import Outcome

MODEL = "model:fake-model"
READING, WRITING = "fhir:ward", "fhir-write:ward"
AWAY = StepFailed(ErrorClass.MODEL_UNAVAILABLE, "gave no answer")
SLOW = StepFailed(ErrorClass.MODEL_TIMEOUT, "no answer within 120 s")


def state(house: Any, dependency: str) -> BreakerState | None:
    found = {breaker.dependency: breaker.state for breaker in house.ledger.breakers()}
    return found.get(dependency)


def come(house: Any) -> None:
    """Every backoff is over, and what is down may be tried."""
    house.wake()
    with house.engine.begin() as connection:
        connection.execute(text("UPDATE breakers SET retry_at = now()"))


def one_by_one(house: Any, concurrency: int = 1) -> None:
    runner = house.config.runner.model_copy(update={"concurrency": concurrency})
    house.config = house.config.model_copy(update={"runner": runner})


def attempts(house: Any) -> list[int]:
    return [row.attempts for row in house.rows()]


def test_a_model_that_is_down_is_asked_a_few_times_and_then_once_in_a_while(house: Any) -> None:
    one_by_one(house)
    for n in range(20):
        house.enter(80, patient=f"p{n}")
    house.model.says = lambda _: AWAY
    assert house.carry().outcomes == {Outcome.FAILED: 5, Outcome.WAITS: 15}
    assert len(house.model.asked) == 5
    assert state(house, MODEL) is BreakerState.OPEN
    assert house.ledger.take_run("in_visit.watch", 100) is None  # all of them wait
    for tried in range(1, 4):
        come(house)
        house.carry()
        assert len(house.model.asked) == 5 + tried
    assert attempts(house) == [0] * 20

    house.model.says = lambda _: '{"reasons": []}'
    come(house)
    house.carry()
    assert {row.state for row in house.rows()} == {"written"}
    assert state(house, MODEL) is BreakerState.CLOSED


def test_red_flags_are_written_while_the_model_is_down_also_those_of_rows_behind_others(house: Any) -> None:
    one_by_one(house)
    house.model.says = lambda _: AWAY
    for n in range(6):
        house.enter(80, patient=f"p{n}")
    house.carry()
    assert state(house, MODEL) is BreakerState.OPEN
    asked = len(house.model.asked)
    house.enter(140, patient="p0")
    house.enter(150, patient="p0")
    house.enter(160, patient="new")
    house.carry()
    assert len(house.fhir.written("Flag")) == 3
    assert len(house.model.asked) == asked
    assert house.ledger.take_run("in_visit.watch", 100) is None

    house.model.says = lambda _: '{"reasons": []}'
    come(house)
    house.carry()
    assert {row.state for row in house.rows()} == {"written"}
    assert len(house.fhir.written("Flag")) == 3
    asked_for = [str(request.messages) for request in house.model.asked[asked:]]
    of_p0 = [n for n, said in enumerate(asked_for) if "pulse 140" in said or "pulse 150" in said]
    assert "pulse 140" in asked_for[of_p0[0]], "order is kept among those who wait"


def test_red_flags_of_rows_behind_a_dead_letter_are_written(house: Any) -> None:
    house.enter(80)
    house.scenario.broken = "nul"
    for _ in range(3):
        house.carry()
        house.wake()
    assert house.rows()[0].state == "parked"
    house.scenario.broken = ""
    asked = len(house.model.asked)
    house.enter(140)
    house.carry()
    assert len(house.fhir.written("Flag")) == 1
    assert len(house.model.asked) == asked
    assert [row.state for row in house.rows()] == ["parked", "waiting"]
    assert house.ledger.take_run("in_visit.watch", 100) is None


def test_a_prompt_that_always_times_out_is_parked_while_others_go_on(house: Any) -> None:
    house.model.says = lambda request: SLOW if "pulse 81" in str(request.messages) else '{"reasons": []}'
    house.enter(81, patient="slow")
    for n in range(8):
        house.enter(80, patient=f"p{n}")
        house.carry()
        house.wake()
    assert house.rows()[0].state == "parked"
    assert house.rows()[0].error_class == "model_timeout"
    assert {row.state for row in house.rows()[1:]} == {"written"}
    assert state(house, MODEL) is BreakerState.CLOSED


def test_a_prompt_that_kills_every_connection_is_parked_as_the_server_serves_others(house: Any) -> None:
    house.model.says = lambda request: AWAY if "pulse 81" in str(request.messages) else '{"reasons": []}'
    house.enter(81, patient="bad")
    for n in range(16):
        house.enter(80, patient=f"p{n}")
        house.carry()
        house.wake()
    assert house.rows()[0].state == "parked"
    assert {row.state for row in house.rows()[1:]} == {"written"}


def test_prompts_that_time_out_do_not_keep_the_model_from_others(house: Any) -> None:
    """The culprits open the breaker; who has not failed tries it, and not they."""
    one_by_one(house)
    house.model.says = lambda request: SLOW if "pulse 81" in str(request.messages) else '{"reasons": []}'
    for n in range(5):
        house.enter(81, patient=f"slow{n}")
    house.carry()
    assert state(house, MODEL) is BreakerState.OPEN
    house.enter(80, patient="good")
    come(house)
    house.carry()
    assert house.rows()[-1].state == "written"
    assert {row.state for row in house.rows()[:-1]} == {"waiting"}


def test_a_server_that_says_garbage_to_everybody_costs_no_event_its_attempts(house: Any) -> None:
    one_by_one(house)
    house.model.says = lambda _: "garbage"
    for n in range(8):
        house.enter(80, patient=f"p{n}")
    for _ in range(6):
        house.carry() if house.ledger.backlog()[0].ready else None
        come(house)
    assert state(house, MODEL) is not BreakerState.CLOSED
    assert max(attempts(house)) <= 1
    house.model.says = lambda _: '{"reasons": []}'
    come(house)
    house.carry()
    assert {row.state for row in house.rows()} == {"written"}


@pytest.mark.parametrize(
    "refusal",
    [FhirUnavailable("POST Bundle: 503", status=503), FhirRejected("POST Bundle: 404", status=404)],
    ids=["503", "404"],
)
def test_a_server_that_takes_no_drafts_lets_the_inferring_go_on_and_gets_them_when_it_is_back(
    house: Any, refusal: Exception
) -> None:
    one_by_one(house)
    for n in range(10):
        house.enter(80, patient=f"p{n}")
    house.fhir.refusals = [refusal] * 100
    assert house.carry().outcomes == {Outcome.FAILED: 5, Outcome.WAITS: 5}
    assert {row.state for row in house.rows()} == {"inferred"}
    assert state(house, WRITING) is BreakerState.OPEN
    house.fhir.refusals = []
    house.enter(80, patient="later")
    assert house.carry().outcomes == {Outcome.WAITS: 1}
    assert len(house.model.asked) == 11
    come(house)
    house.carry()
    assert {row.state for row in house.rows()} == {"written"}
    assert state(house, WRITING) is BreakerState.CLOSED


def test_work_that_has_nothing_to_write_does_not_show_that_the_server_takes_drafts(house: Any) -> None:
    one_by_one(house)
    house.scenario.broken = "silent under 70"
    for n in range(10):
        house.enter(80, patient=f"p{n}")
        house.enter(60, patient=f"q{n}")
    house.fhir.refusals = [FhirRejected("transaction: 422", status=422)] * 100
    outcomes = house.carry().outcomes
    assert (outcomes[Outcome.FAILED], outcomes[Outcome.WAITS], outcomes[Outcome.WRITTEN]) == (5, 5, 10)
    assert state(house, WRITING) is BreakerState.OPEN


def test_work_that_reads_nothing_does_not_show_that_the_server_can_be_read(house: Any) -> None:
    house.scenario.record = ()
    house.enter(80, subject={"display": "somebody without a record"}, encounter={"display": "none"})
    house.carry()
    assert state(house, READING) is None
    house.scenario.record = type(house.scenario).record
    house.enter(80, patient="p2")
    house.carry()
    assert state(house, READING) is BreakerState.CLOSED


def test_a_server_that_cannot_be_read_stops_the_beginning_and_nothing_is_asked_of_it_meanwhile(house: Any) -> None:
    one_by_one(house)
    for n in range(10):
        house.enter(140, patient=f"p{n}")
    house.fhir.failures = [FhirUnavailable("GET Patient: 503", status=503)] * 100
    assert house.carry().outcomes == {Outcome.FAILED: 5, Outcome.WAITS: 5}
    assert house.ledger.take_run("in_visit.watch", 100) is None
    house.fhir.failures = []
    come(house)
    house.carry()
    assert {row.state for row in house.rows()} == {"written"}
    assert len(house.fhir.written("Flag")) == 10


def test_others_of_a_run_wait_for_the_one_that_tries_and_go_on_with_it(house: Any) -> None:
    one_by_one(house)
    for n in range(6):
        house.enter(80, patient=f"p{n}")
    house.model.says = lambda _: AWAY
    house.carry()
    one_by_one(house, 16)
    house.model.says = lambda _: '{"reasons": []}'
    house.model.most_in_flight = 0
    come(house)
    assert house.carry().outcomes == {Outcome.WRITTEN: 6}


def test_a_healthy_way_asks_the_breakers_and_the_switches_once_and_not_for_each_row(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(50):
        house.enter(80, patient=f"p{n}")
    calls: dict[str, int] = {}

    def counted(name: str) -> None:
        real = getattr(house.ledger, name)

        def call(*arguments: Any, **named: Any) -> Any:
            calls[name] = calls.get(name, 0) + 1
            return real(*arguments, **named)

        monkeypatch.setattr(house.ledger, name, call)

    for name in ("breakers", "served", "switched_off", "superseded", "confirm", "inferred", "written", "renew"):
        counted(name)
    house.carry()
    assert {row.state for row in house.rows()} == {"written"}
    assert calls["inferred"] == calls["confirm"] == calls["written"] == 50
    assert max(calls["superseded"], calls["breakers"], calls["served"], calls["switched_off"]) < 20
