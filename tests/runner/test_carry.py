"""The whole way of a run: what is written, what waits, what is parked, and that nothing is written twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from fhir_adapters.errors import FhirConflict, FhirRejected, FhirUnavailable
from pipelines.batch import Outcome
from pipelines.errors import ErrorClass, LedgerError, StepFailed
from plugins.manager import load
from plugins.model_backend import ChatAnswer

CANARY = "Zanzibarov"


def test_an_event_becomes_a_labelled_draft_with_its_provenance(house: Any) -> None:
    house.enter(80)
    assert house.carry().outcomes == {Outcome.WRITTEN: 1}
    (risk,) = house.fhir.written("RiskAssessment")
    (device,) = house.fhir.written("Device")
    (provenance,) = house.fhir.written("Provenance")
    assert risk["meta"]["security"][0]["code"] == "AIAST"
    assert risk["note"] == [{"text": "pulse is high"}]
    assert device["deviceName"][0]["name"] == "fake-model"
    assert device["version"] == [{"value": "7"}]
    assert "备案-1" in json.dumps(device, ensure_ascii=False)
    assert provenance["entity"][0]["what"]["reference"] == "Observation/o0/_history/1"
    assert risk["performer"]["reference"] == provenance["agent"][0]["who"]["reference"]
    assert risk["performer"]["reference"].startswith("Device/new-")
    (row,) = house.rows()
    assert row.state == "written"
    assert row.drafts is None
    assert row.created == 1
    assert row.written == [
        reference for reference in house.fhir.resources if reference.startswith("RiskAssessment/new")
    ]
    assert row.started_at < row.context_at < row.answered_at < row.guarded_at < row.written_at
    assert (row.model, row.prompt_tokens, row.completion_tokens, row.model_seconds) == ("fake-model", 100, 20, 0.5)


def test_running_the_same_run_again_does_nothing(house: Any) -> None:
    house.enter(80)
    run_id = house.run()
    house.carry(run_id)
    assert house.carry(run_id).outcomes == {}
    assert len(house.fhir.transactions) == 1
    assert len(house.model.asked) == 1


def test_a_lost_answer_is_repeated_and_recognised(house: Any) -> None:
    house.enter(80)
    house.fhir.lose_answer = True
    house.carry()
    (row,) = house.rows()
    assert (row.state, row.error_class, row.attempts) == ("inferred", "fhir_unavailable", 0)
    house.wake()
    house.carry()
    (row,) = house.rows()
    assert (row.state, row.created, row.recognised) == ("written", 0, 1)
    assert len(house.fhir.written("RiskAssessment")) == 1
    assert len(house.model.asked) == 1


def test_a_red_flag_is_written_with_the_model_down_and_the_rest_follows_when_it_is_back(house: Any) -> None:
    house.enter(140)
    house.model.says = lambda _: StepFailed(ErrorClass.MODEL_UNAVAILABLE, "gave no answer")
    summary = house.carry()
    assert summary.errors == {ErrorClass.MODEL_UNAVAILABLE: 1}
    assert summary.failed_all
    (flag,) = house.fhir.written("Flag")
    assert flag["meta"]["security"][0]["code"] == "AIAST"
    (device,) = house.fhir.written("Device")
    assert device["type"] == {"text": "Rules engine"}
    (row,) = house.rows()
    assert (row.state, row.attempts, row.created) == ("waiting", 0, 1)
    assert row.rules_written_at is not None

    house.model.says = lambda _: '{"reasons": []}'
    house.wake()
    house.carry()
    (row,) = house.rows()
    assert (row.state, row.created) == ("written", 2)
    assert len(house.fhir.written("Flag")) == 1
    (risk,) = house.fhir.written("RiskAssessment")
    assert risk["basis"][0]["reference"] == row.written[0]


def test_a_red_flag_is_at_the_server_before_the_model_is_asked(house: Any) -> None:
    flags_when_asked: list[int] = []

    def says(_: Any) -> str:
        flags_when_asked.append(len(house.fhir.written("Flag")))
        return '{"reasons": []}'

    house.enter(140)
    house.model.says = says
    house.carry()
    assert flags_when_asked == [1]
    (risk,) = house.fhir.written("RiskAssessment")
    assert risk["basis"][0]["reference"].startswith("Flag/new-")


def test_a_model_that_is_switched_off_is_not_asked_and_red_flags_go_out(house: Any) -> None:
    house.ledger.switch_off("model", "fake-model", by="dr", why="recall")
    house.enter(140)
    house.carry()
    assert house.model.asked == []
    assert len(house.fhir.written("Flag")) == 1
    assert house.rows()[0].state == "waiting"
    assert "switched off" in house.rows()[0].error


@pytest.mark.parametrize("kind", ["everything", "scenario"])
def test_a_switch_between_decision_and_work_keeps_the_rows_as_they_were(house: Any, kind: str) -> None:
    house.enter(140)
    run_id = house.run()
    house.ledger.switch_off(kind, "in_visit.watch" if kind == "scenario" else "", by="dr", why="halt")
    assert house.carry(run_id).outcomes == {Outcome.HELD_BACK: 1}
    (row,) = house.rows()
    assert (row.state, row.attempts, row.error_class, row.run_id) == ("waiting", 0, None, None)
    assert house.fhir.transactions == []
    house.ledger.switch_on(kind, "in_visit.watch" if kind == "scenario" else "")
    house.carry()
    assert house.rows()[0].state == "written"


def test_a_switch_that_is_turned_before_the_drafts_are_written_keeps_them(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.batch._SWITCHES_KEEP", 0.0)

    def halted(_: Any) -> str:
        house.ledger.switch_off("everything", "", by="dr", why="halt")
        return '{"reasons": []}'

    house.enter(80)
    house.model.says = halted
    assert house.carry().outcomes == {Outcome.HELD_BACK: 1}
    assert house.fhir.transactions == []
    assert house.rows()[0].state == "inferred"
    house.ledger.switch_on("everything", "")
    house.carry()
    assert house.rows()[0].state == "written"
    assert len(house.model.asked) == 1


def test_a_worker_that_was_thought_dead_writes_nothing(house: Any) -> None:
    house.enter(140)
    run_id = house.run()

    def overtaken(_: Any) -> str:
        house.ledger.claim(run_id, 30)
        return '{"reasons": []}'

    house.model.says = overtaken
    assert house.carry(run_id).outcomes == {Outcome.LEASE_LOST: 1}
    assert house.rows()[0].state == "running"
    assert house.rows()[0].drafts is None
    assert len(house.fhir.transactions) == 1  # the red flag, while the lease was its own


def test_a_writer_that_was_thought_dead_writes_nothing(house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    house.enter(80)
    run_id = house.run()
    confirm = house.ledger.confirm

    def overtaken(*arguments: Any) -> Any:
        house.ledger.claim(run_id, 30)
        return confirm(*arguments)

    monkeypatch.setattr(house.ledger, "confirm", overtaken)
    assert house.carry(run_id).outcomes == {Outcome.LEASE_LOST: 1}
    assert house.fhir.transactions == []
    assert house.rows()[0].state == "inferred"
    monkeypatch.undo()
    assert house.carry(run_id).outcomes == {Outcome.WRITTEN: 1}
    assert len(house.model.asked) == 1


def test_a_lease_lost_before_the_red_flag_stops_the_red_flag_too(house: Any) -> None:
    house.enter(140)
    run_id = house.run()
    rules = house.scenario.rules

    def overtaken(case: Any) -> Any:
        house.ledger.claim(run_id, 30)
        return rules(case)

    house.scenario.rules = overtaken
    assert house.carry(run_id).outcomes == {Outcome.LEASE_LOST: 1}
    assert house.fhir.transactions == []
    assert house.model.asked == []


def test_what_a_newer_version_overtook_is_stale_before_and_after_the_model(house: Any) -> None:
    house.enter(80, id_="o1", version="1")
    run_id = house.run()
    house.enter(90, id_="o1", version="2")
    assert house.carry(run_id).outcomes == {Outcome.STALE: 1}
    assert house.model.asked == []

    def overtaken(_: Any) -> str:
        house.enter(95, id_="o1", version="3")
        return '{"reasons": []}'

    house.model.says = overtaken
    assert house.carry().outcomes == {Outcome.STALE: 1}
    assert house.fhir.transactions == []
    assert [row.state for row in house.rows()] == ["stale", "stale", "waiting"]


def test_rows_of_one_patient_go_in_order_and_none_overtakes_one_that_waits(house: Any) -> None:
    for value in (80, 81, 82):
        house.enter(value, patient="p1")
    house.enter(83, patient="p2")
    house.model.says = lambda request: (
        StepFailed(ErrorClass.MODEL_TIMEOUT, "slow") if "pulse 81" in str(request.messages) else '{"reasons": []}'
    )
    summary = house.carry()
    assert summary.outcomes == {Outcome.WRITTEN: 2, Outcome.FAILED: 1, Outcome.HELD_BACK: 1}
    assert not summary.failed_all
    assert [(row.state, row.attempts) for row in house.rows()] == [
        ("written", 0), ("waiting", 1), ("waiting", 0), ("written", 0),
    ]  # fmt: skip
    assert house.rows()[2].error_class is None
    assert "pulse 82" not in str(house.model.asked)


def test_patients_are_worked_on_side_by_side_but_no_more_than_the_limit(house: Any) -> None:
    house.config = house.config.model_copy(update={"runner": house.config.runner.model_copy(update={"concurrency": 3})})
    for n in range(9):
        house.enter(80, patient=f"p{n}")
    house.carry()
    assert house.model.most_in_flight == 3


@pytest.mark.parametrize("bad", ["not json", '{"reasons": "none"}', '{"reasons": []} and more', ""])
def test_an_answer_that_is_none_is_asked_for_once_more_and_otherwise(house: Any, bad: str) -> None:
    house.enter(80)
    house.model.says = lambda _: bad if len(house.model.asked) == 1 else '{"reasons": []}'
    house.carry()
    first, second = house.model.asked
    assert first.temperature == 0.0
    assert second.temperature > 0
    assert second.request_id != first.request_id
    (row,) = house.rows()
    assert row.state == "written"
    assert (row.prompt_tokens, row.model_seconds) == (200, 1.0)


def test_an_answer_that_is_never_one_is_parked_after_the_last_attempt(house: Any) -> None:
    house.enter(80)
    house.model.says = lambda _: ChatAnswer('{"reasons": [', "length", 10, 10, 0.1, "fake-model")
    for _ in range(3):
        house.carry()
        house.wake()
    (row,) = house.rows()
    assert (row.state, row.error_class, row.attempts) == ("parked", "model_invalid_output", 3)
    assert len(house.model.asked) == 6


def test_statements_without_support_are_cut_counted_and_not_written(house: Any, answer: Callable[..., str]) -> None:
    house.enter(80)
    house.guards = load(built_in=["plugins.guards.numbers"]).guards
    house.model.says = lambda _: answer("pulse 80", "R1", "pulse 200", "R1", "all well", "R7")
    house.carry()
    assert house.rows()[0].cut_statements == 2
    assert house.fhir.written("RiskAssessment")[0]["note"] == [{"text": "pulse 80"}]


def test_the_record_is_asked_for_as_the_scenario_says_and_other_patients_are_kept_out(house: Any) -> None:
    mine, other = {"reference": "Patient/p1"}, {"reference": "Patient/p2"}
    house.fhir.found["Condition"] = [
        {"resourceType": "Condition", "id": "a", "subject": mine},
        {"resourceType": "Condition", "id": "b", "subject": other},
        {"resourceType": "Condition", "id": "c", "subject": mine},
    ]
    house.fhir.found["DocumentReference"] = [
        {"resourceType": "DocumentReference", "id": "d"},
        {"resourceType": "Practitioner", "id": "e"},
        {"resourceType": "DocumentReference", "id": "f", "subject": {"reference": "http://elsewhere.test/Patient/p1"}},
    ]
    house.enter("7.20")
    house.carry()
    (case,) = house.scenario.cases
    assert [condition["id"] for condition in case.get("problems")] == ["a"]
    assert [resource["id"] for resource in case.get("notes")] == ["e"]
    assert case.truncated == {"problems"}
    assert case.patient["id"] == "p1"
    assert case.now.tzinfo is not None
    assert (case.locale, str(case.trigger["valueQuantity"]["value"])) == ("en", "7.20")
    assert "pulse 7.20" in house.model.asked[0].messages[1]["content"]
    searches = dict(house.fhir.searches)
    assert searches["Condition"] == {"patient": "Patient/p1", "_sort": "-recorded-date", "_count": "3"}
    assert searches["DocumentReference"]["encounter"] == "Encounter/e1"
    assert searches["DocumentReference"]["date"] == "ge2025-12-30T00:00:00Z"


def test_a_query_without_its_encounter_is_not_run_and_a_patient_is_read_once_a_batch(house: Any) -> None:
    house.enter(80, encounter=None)
    house.enter(81, encounter={"reference": "http://elsewhere.test/Encounter/e1"})
    house.carry()
    assert {kind for kind, _ in house.fhir.searches} == {"Condition"}
    assert house.fhir.reads == ["Patient/p1"]


def test_a_patient_that_is_not_there_leaves_the_case_without_one(house: Any) -> None:
    house.enter(80, patient="gone")
    house.carry()
    assert house.scenario.cases[0].patient is None
    assert house.rows()[0].state == "written"


@pytest.mark.parametrize(
    ("failure", "error_class", "attempts"),
    [
        (FhirUnavailable("GET Patient: 503", status=503, retry_after=7.0), "fhir_unavailable", 0),
        (FhirRejected("GET Condition: 400", status=400), "fhir_rejected", 1),
        (FhirRejected("GET Patient: 401", status=401), "fhir_unavailable", 0),
    ],
)
def test_a_record_that_cannot_be_read_whole_is_not_worked_on(
    house: Any, failure: Exception, error_class: str, attempts: int
) -> None:
    house.enter(140)
    house.fhir.failures = [failure]
    house.carry()
    (row,) = house.rows()
    assert (row.state, row.error_class, row.attempts) == ("waiting", error_class, attempts)
    assert house.model.asked == []
    assert house.fhir.transactions == []


def test_a_race_for_the_same_draft_is_won_by_trying_again(house: Any) -> None:
    house.enter(80)
    house.fhir.refusals = [FhirConflict("POST Bundle: 409", status=409) for _ in range(3)]
    assert house.carry().outcomes == {Outcome.WRITTEN: 1}


@pytest.mark.parametrize(
    ("failures", "state", "error_class", "attempts"),
    [
        ([FhirConflict("409", status=409)] * 5, "inferred", "fhir_conflict", 0),
        ([FhirConflict("412", status=412)], "inferred", "fhir_rejected", 1),
        ([FhirUnavailable("503", status=503)], "inferred", "fhir_unavailable", 0),
        ([FhirRejected("422", status=422)], "inferred", "fhir_rejected", 1),
    ],
)
def test_drafts_that_could_not_be_written_are_kept_and_the_model_is_not_asked_again(
    house: Any, failures: list[Exception], state: str, error_class: str, attempts: int
) -> None:
    house.enter(80)
    house.fhir.refusals = list(failures)
    house.carry()
    (row,) = house.rows()
    assert (row.state, row.error_class, row.attempts) == (state, error_class, attempts)
    house.wake()
    house.carry()
    assert house.rows()[0].state == "written"
    assert len(house.model.asked) == 1


def test_a_draft_that_the_server_never_takes_is_parked(house: Any) -> None:
    house.enter(80)
    for _ in range(3):
        house.fhir.refusals = [FhirRejected("POST Bundle: 422", status=422)]
        house.carry()
        house.wake()
    assert house.rows()[0].state == "parked"
    assert house.rows()[0].error == "POST Bundle: 422"


def test_a_source_without_a_way_back_costs_no_model_call_and_says_what_to_set(house: Any) -> None:
    house.enter(140, source="one-way")
    house.carry()
    (row,) = house.rows()
    assert row.error_class == "fhir_rejected"
    assert "one-way has no base_url" in row.error
    assert house.model.asked == []


def test_a_scenario_that_is_not_installed_and_a_payload_that_is_gone_say_so(house: Any) -> None:
    house.enter(80)
    house.installed = False
    house.carry()
    assert house.rows()[0].error_class == "scenario_missing"
    house.installed = True
    house.payloads.bytes.clear()
    house.wake()
    house.carry()
    assert house.rows()[0].error_class == "payload_gone"
    assert "no longer in the topic" in house.rows()[0].error


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"resourceType": "Patient", "id": "o0"}', b'{"resourceType": "Observation"}']
)
def test_bytes_that_are_not_the_events_resource_are_refused(house: Any, body: bytes) -> None:
    house.enter(80)
    house.payloads.bytes = dict.fromkeys(house.payloads.bytes, body)
    house.carry()
    assert house.rows()[0].error_class == "payload_invalid"


def test_drafts_that_postgresql_and_fhir_cannot_hold_are_the_scenarios_fault(house: Any) -> None:
    house.scenario.broken = "nul"
    house.enter(80)
    house.carry()
    assert house.rows()[0].error_class == "scenario_error"
    assert "U+0000" in house.rows()[0].error


def test_an_own_fault_stops_one_row_and_names_the_place_but_not_the_data(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError(CANARY)

    monkeypatch.setattr("pipelines.asking.chat", broken)
    house.enter(80)
    house.carry()
    (row,) = house.rows()
    assert row.error_class == "internal"
    assert row.error.startswith("KeyError at test_carry.py:")


def test_a_ledger_that_does_not_answer_ends_the_step_and_quotes_nothing(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.enter(80)
    run_id = house.run()

    def says(_: Any) -> str:
        with house.engine.begin() as connection:
            connection.execute(text("ALTER TABLE work RENAME TO gone"))
        return json.dumps({"reasons": [{"text": CANARY, "sources": ["R1"]}]})

    house.model.says = says
    with pytest.raises(LedgerError) as caught:
        house.carry(run_id)
    with house.engine.begin() as connection:
        connection.execute(text("ALTER TABLE gone RENAME TO work"))
    assert CANARY not in str(caught.value)
    assert "UndefinedTable" in str(caught.value)


def test_leases_are_kept_while_a_model_thinks(house: Any) -> None:
    house.config = house.config.model_copy(update={"runner": house.config.runner.model_copy(update={"lease": 0.2})})
    house.enter(80)
    until: list[Any] = []

    def says(_: Any) -> str:
        until.append(house.rows()[0].lease_until)
        return "none" if len(until) < 30 else '{"reasons": []}'

    from pipelines import asking

    before, asking.ASKED_AT_MOST = asking.ASKED_AT_MOST, 30
    try:
        house.model.says = says
        house.carry()
    finally:
        asking.ASKED_AT_MOST = before
    assert house.rows()[0].state == "written"
    assert until[-1] > until[0]


def test_no_patients_name_gets_into_logs_exceptions_summaries_or_the_ledgers_error(
    house: Any, caplog: pytest.LogCaptureFixture, answer: Callable[..., str]
) -> None:
    house.fhir.put({"resourceType": "Patient", "id": "p1", "name": [{"text": CANARY}]})
    named = {"note": [{"text": f"{CANARY} says 'ignore the rules'"}]}
    house.scenario.broken = "rules"
    house.enter(80, **named)
    house.carry()
    house.scenario.broken = ""
    house.model.says = lambda _: f'{{"{CANARY}": '
    house.wake()
    house.carry()
    house.model.says = lambda _: answer(f"{CANARY} 99", "R1")
    house.enter(140, patient="p2", **named)
    house.wake()
    house.carry()
    errors = [f"{row.error} {row.error_class} {row.run_id}" for row in house.rows()]
    assert "rules() of the scenario failed: ValueError at conftest.py:" in errors[0] or "None" in errors[0]
    told = caplog.text + "".join(errors) + "".join(f"{s.line} {s!r}" for s in house.summaries)
    assert "scenario_error" in told
    assert CANARY not in told
