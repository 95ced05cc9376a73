"""Who may switch and decide by the page, what it needs for it, and what then stands in the ledger."""

from __future__ import annotations

from sqlalchemy import Engine, text

from pipelines.errors import ErrorClass
from pipelines.ledger import Ledger
from tests.monitoring.airflow_page.page_parts import NOTE, TRIAGE, Enter, section, state


def test_a_viewer_reads_and_does_nothing(
    logged_in: Enter, ledger: Ledger, page_engine: Engine, happens, poison
) -> None:
    parked, record = happens(TRIAGE, error_class=ErrorClass.PAYLOAD_INVALID), poison(5)
    vera = logged_in("vera")
    page = vera.get().text
    assert TRIAGE in page and 'method="post" action="/careloom/switch"' not in page and "<fieldset" not in page
    forms: list[tuple[str, dict[str, object]]] = [
        ("switch", {"kind": "scenario", "name": TRIAGE, "to": "off", "why": "x"}),
        ("switch", {"kind": "everything", "name": "", "to": "off", "why": "x"}),
        ("dead-letters", {"kind": "work", "verb": "discard", "which": "selected", "id": parked, "why": "x"}),
        ("dead-letters", {"kind": "work", "verb": "discard", "which": "all", "expected": "1", "why": "x"}),
        ("dead-letters", {"kind": "poison", "verb": "discard", "which": "selected", "id": f"p{record}", "why": "x"}),
    ]
    token = logged_in("vera").token()
    for path, fields in forms:
        answer = vera.post(path, fields, token=token)
        assert answer.status_code == 403 and "permission to edit" in answer.text, (path, fields)
    assert (state(page_engine, parked), ledger.switched_off(), ledger.poison_count()) == ("parked", [], 1)


def test_who_may_edit_some_dags_decides_on_those_alone(logged_in: Enter, ledger: Ledger, page_engine, happens) -> None:
    mine = happens(TRIAGE, error_class=ErrorClass.PAYLOAD_INVALID)
    other = happens(NOTE, error_class=ErrorClass.PAYLOAD_INVALID)
    half = logged_in("half")
    assert half.post("switch", {"kind": "scenario", "name": TRIAGE, "to": "off", "why": "x"}).status_code == 303
    assert half.post("switch", {"kind": "scenario", "name": NOTE, "to": "off", "why": "x"}).status_code == 403
    assert half.post("switch", {"kind": "model", "name": "small", "to": "off", "why": "x"}).status_code == 403
    both = {"kind": "work", "verb": "retry", "which": "selected", "id": [mine, other], "why": "x"}
    assert half.post("dead-letters", both).status_code == 403
    every = {"kind": "work", "verb": "retry", "which": "all", "expected": "1", "why": "x"}
    assert half.post("dead-letters", every).status_code == 303
    assert (state(page_engine, mine), state(page_engine, other)) == ("waiting", "parked")


def test_an_operator_switches_a_scenario_a_model_and_everything(logged_in: Enter, ledger: Ledger) -> None:
    uma = logged_in("uma")
    for kind, name in (("scenario", TRIAGE), ("model", "small"), ("everything", "")):
        answer = uma.post("switch", {"kind": kind, "name": name, "to": "off", "why": "夜间维护 <b>"})
        assert answer.status_code == 303, answer.text
        assert "Switched off." in uma.get(answer.headers["location"].partition("#")[0]).text
        [switch] = ledger.switched_off()
        assert (switch.kind, switch.name, switch.by, switch.why) == (kind, name, "uma", "夜间维护 <b>")
        page = uma.get().text
        assert (
            "夜间维护 &lt;b&gt;" in page and "<b>" not in page.replace("<b>uma</b>", "").partition("夜间维护")[2][:20]
        )
        assert uma.post("switch", {"kind": kind, "name": name, "to": "on", "why": "done"}).status_code == 303
        assert ledger.switched_off() == []
        last = ledger.switchings()[0]
        assert (last.kind, last.name, last.off, last.by, last.why) == (kind, name, False, "uma", "done")
    log = logged_in("ada").get("/probe/log").json()[-6:]
    assert [line["event"] for line in log] == ["careloom.switch_off", "careloom.switch_on"] * 3
    assert {line["owner"] for line in log} == {"uma"} and "维护" not in str(log)


def test_a_switch_needs_a_reason_and_something_to_switch(logged_in: Enter, ledger: Ledger) -> None:
    uma = logged_in("uma")
    for fields in (
        {"kind": "scenario", "name": TRIAGE, "to": "off", "why": "  "},
        {"kind": "scenario", "name": TRIAGE, "to": "off", "why": "x" * 501},
        {"kind": "scenario", "name": "pre_visit.typo", "to": "off", "why": "x"},
        {"kind": "model", "name": "typo", "to": "off", "why": "x"},
        {"kind": "everything", "name": TRIAGE, "to": "off", "why": "x"},
        {"kind": "nothing", "name": "", "to": "off", "why": "x"},
        {"kind": "scenario", "name": TRIAGE, "to": "sideways", "why": "x"},
    ):
        assert uma.post("switch", fields).status_code == 400, fields
    assert ledger.switched_off() == []


def test_dead_letters_are_retried_and_discarded_with_a_reason(logged_in: Enter, ledger, page_engine, happens) -> None:
    one, two, three = (happens(TRIAGE, p, ErrorClass.PAYLOAD_INVALID) for p in "abc")
    uma = logged_in("uma")
    fields = {"kind": "work", "which": "selected", "why": "mended"}
    assert uma.post("dead-letters", {**fields, "verb": "discard", "id": one, "why": ""}).status_code == 400
    assert uma.post("dead-letters", {**fields, "verb": "discard"}).status_code == 400
    answer = uma.post("dead-letters", {**fields, "verb": "retry", "id": [one, two]})
    assert "2 will be tried again." in uma.get(answer.headers["location"].partition("#")[0]).text
    uma.post("dead-letters", {**fields, "verb": "discard", "id": three, "why": "entered in error"})
    assert [state(page_engine, number) for number in (one, two, three)] == ["waiting", "waiting", "discarded"]
    with page_engine.begin() as connection:
        note = connection.execute(text("SELECT error FROM work WHERE id = :id"), {"id": three}).scalar_one()
    assert note == "discarded by uma: entered in error"
    again = uma.post("dead-letters", {**fields, "verb": "discard", "id": three})
    assert "Nothing was changed" in uma.get(again.headers["location"].partition("#")[0]).text


def test_a_filter_is_decided_on_as_it_was_shown(logged_in: Enter, ledger: Ledger, page_engine: Engine, happens) -> None:
    invalid = [happens(TRIAGE, f"i{n}", ErrorClass.PAYLOAD_INVALID) for n in range(3)]
    broken = happens(TRIAGE, "b", ErrorClass.SCENARIO_ERROR)
    uma = logged_in("uma")
    page = uma.get(f"/careloom/?scenario={TRIAGE}&class=payload_invalid").text
    assert section(page, "letters-number").strip() == "3"
    assert "scenario_error" not in section(page, "letters-form")
    fields = {"kind": "work", "which": "all", "verb": "discard", "class": "payload_invalid", "why": "a test"}
    happens(TRIAGE, "late", ErrorClass.PAYLOAD_INVALID)
    answer = uma.post("dead-letters", {**fields, "expected": "3"})
    assert answer.status_code == 409 and "There are 4 now" in answer.text
    assert uma.post("dead-letters", {**fields, "expected": "4"}).status_code == 303
    assert {state(page_engine, number) for number in invalid} == {"discarded"}
    assert state(page_engine, broken) == "parked"
    assert uma.post("dead-letters", {**fields, "class": "typo", "expected": "1"}).status_code == 400


def test_records_that_are_no_events_are_discarded_or_read_again(logged_in: Enter, ledger: Ledger, poison) -> None:
    first, _, _ = poison(1), poison(2), poison(3)
    uma = logged_in("uma")
    page = uma.get().text
    assert "not_json" in section(page, "poison-form") and "events[1]@1" in section(page, "poison-form")
    fields = {"kind": "poison", "verb": "discard", "why": "a test of the interface"}
    assert uma.post("dead-letters", {**fields, "which": "selected", "id": f"p{first}"}).status_code == 303
    assert ledger.poison_count() == 2
    every = {**fields, "which": "all", "class": "not_json"}
    assert uma.post("dead-letters", {**every, "expected": "3"}).status_code == 409
    answer = uma.post("dead-letters", {**every, "expected": "2", "verb": "retry"})  # there is no Kafka here
    assert answer.status_code == 503 and "CareloomBrokerUnavailable" in answer.text
    assert uma.post("dead-letters", {**every, "expected": "2"}).status_code == 303
    assert ledger.poison_count() == 0


def test_at_most_a_hundred_are_shown_and_all_are_counted(
    logged_in: Enter, ledger: Ledger, page_engine, happens
) -> None:
    happens(TRIAGE, error_class=ErrorClass.PAYLOAD_INVALID)
    columns = (
        "event_id, scenario, stage, patient_key, state, not_before, received_at, durable_at, matched_at, error_class"
    )
    with page_engine.begin() as connection:
        copy = (
            f"INSERT INTO work ({columns}, scenario_version) SELECT {columns}, n FROM work, generate_series(2, 121) n"
        )
        connection.execute(text(copy))
    page = logged_in("ada").get().text
    assert section(page, "letters-form").count("payload_invalid") == 100
    assert "The first 100 of 121." in page and "all 121" in page
