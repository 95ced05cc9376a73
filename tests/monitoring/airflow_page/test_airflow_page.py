"""The page in Airflow's UI, in Airflow's own API server with its own logins: who sees what, and who may do what."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from pipelines.errors import ErrorClass, PoisonReason, StepFailed
from pipelines.failure_policy import BREAKS_AFTER
from pipelines.ledger import EventRow, Incoming, Inference, Ledger, Match, Poison, Position

TRIAGE, NOTE, PAUSED, ABSENT = (
    "pre_visit.triage",
    "in_visit.admission_note",
    "in_visit.record_qc",
    "post_visit.adherence_risk",
)
CANARY = "Zhang-Canary-Name"
Enter = Callable[[str], Any]


@pytest.fixture
def happens(ledger: Ledger) -> Callable[..., int]:
    """Records one event for a scenario; with an error class it fails for good. Returns its number."""
    offsets = iter(range(1000))

    def happen(scenario: str, patient: str = "p", error_class: ErrorClass | None = None, error: str = "no") -> int:
        offset = next(offsets)
        position = Position("events", 0, offset)
        now = datetime.now(UTC)
        event = EventRow(
            event_id=f"event-{offset}",
            source="hospital",
            fhir_version="R4",
            resource_type="Encounter",
            resource_id=f"{CANARY}-{offset}",
            version_id="1",
            last_updated=now,
            change="written",
            patient_key=f"{CANARY}-{patient}",
            position=position,
            received_at=now,
            durable_at=now,
        )
        ledger.record([Incoming(position, event, (Match(scenario, "1", scenario.partition(".")[0]),))])
        if error_class is None:
            return offset
        run = ledger.take_run(scenario, 1)
        assert run is not None
        [item] = ledger.claim(run.run_id, 60)
        ledger.failed(item, StepFailed(error_class, error))
        return item.id

    return happen


@pytest.fixture
def poison(ledger: Ledger) -> Callable[[int], int]:
    def make(offset: int) -> int:
        when = datetime(2026, 1, 1, tzinfo=UTC)
        ledger.record([Incoming(Position("events", 1, offset), None, poison=Poison(PoisonReason.NOT_JSON, when))])
        return max(row.id for row in ledger.poison())

    return make


def state(engine: Engine, work_id: int) -> str:
    with engine.begin() as connection:
        return str(connection.execute(text("SELECT state FROM work WHERE id = :id"), {"id": work_id}).scalar_one())


def section(page: str, id_: str) -> str:
    """The text of a row, a body or a form with this id."""
    found = re.search(rf'<(\w+)[^>]* id="{re.escape(id_)}".*?</\1>', page, re.DOTALL)
    assert found, f"the page has no {id_}"
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", found[0]))


# --- being there ------------------------------------------------------------------------------------------------------


def test_airflow_has_it_in_its_navigation_and_every_page_has_its_guards(logged_in: Enter, ledger: Ledger) -> None:
    ada = logged_in("ada")
    told = ada.get("/probe/plugins").json()
    [plugin] = [plugin for plugin in told["plugins"] if plugin["name"] == "careloom"]
    assert told["errors"] == {}
    [view] = plugin["external_views"]
    assert (view["name"], view["destination"], view["url_route"]) == ("careloom", "nav", "careloom")
    assert ada.get("/" + view["icon"]).headers["content-type"].startswith("image/svg")
    page = ada.get("/" + view["href"])
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'self'" in policy and "unsafe" not in policy
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|\sstyle=|https?://", page.text), (
        "against its own policy"
    )
    for asset in re.findall(r'(?:src|href)="(/careloom/static/[^"]+)"', page.text):
        assert ada.get(asset).status_code == 200


def test_every_scenario_stands_with_its_state_and_objective(logged_in: Enter, ledger: Ledger, happens) -> None:
    happens(TRIAGE)
    ledger.switch_off("scenario", NOTE, by="wang", why="audit")
    page = logged_in("ada").get().text
    assert "Triage 智能分诊" in section(page, f"s-{TRIAGE}")
    assert "running 运行中" in section(page, f"s-{TRIAGE}") and "goal 95 % in 2 min" in section(page, f"s-{TRIAGE}")
    assert "switched off 已关闭" in section(page, f"s-{NOTE}")
    assert re.search(r"off by wang since .* : audit", section(page, f"s-{NOTE}"))
    assert "paused in Airflow" in section(page, f"s-{PAUSED}")
    assert "no DAG that can run" in section(page, f"s-{ABSENT}")
    assert f'href="/dags/{TRIAGE}"' in page and f'href="/dags/{TRIAGE}/runs"' in page
    assert f'href="/dags/{ABSENT}"' not in page


def test_what_waits_is_told_with_its_reason_and_a_runbook_that_is_there(
    logged_in: Enter, ledger: Ledger, happens
) -> None:
    happens(TRIAGE)
    happens(PAUSED)
    happens("a.gone")
    for work in range(BREAKS_AFTER):
        ledger.not_served("fhir:hospital", "fhir_unavailable", work=work)
    ada = logged_in("ada")
    page = ada.get().text
    waits = section(page, "wait-rows")
    assert f"{TRIAGE} a dependency is down 依赖不可用 fhir:hospital fhir_unavailable" in waits
    assert "fhir:hospital is down since" in section(page, "alarms")
    runbooks = set(re.findall(r'href="(/careloom/runbooks/\w+)"', page))
    assert "/careloom/runbooks/CareloomDependencyDown" in runbooks
    for runbook in runbooks:
        answer = ada.get(runbook)
        assert answer.status_code == 200 and "<h2>Mitigation</h2>" in answer.text
    assert ada.get("/careloom/runbooks/../../secret").status_code == 404
    assert ada.get("/careloom/runbooks/None").status_code == 404


def test_shares_are_of_events_that_are_decided(logged_in: Enter, ledger: Ledger, page_engine: Engine, happens) -> None:
    for offset in range(3):
        happens(TRIAGE, f"p{offset}")
    with page_engine.begin() as connection:
        connection.execute(text("UPDATE work SET state = 'written', written_at = now() WHERE id <= 2"))
        connection.execute(text("UPDATE work SET received_at = now() - interval '1 hour' WHERE id = 2"))
    assert "50 % of 2" in section(logged_in("ada").get().text, f"s-{TRIAGE}")


def test_an_empty_house_says_so(logged_in: Enter, ledger: Ledger) -> None:
    page = logged_in("ada").get().text
    assert "Nothing waits." in page and "No dead letters." in page


# --- who may look -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/careloom/", "/careloom/runbooks/CareloomWorkParked"])
def test_without_a_login_nothing_is_shown(served: Any, ledger: Ledger, path: str) -> None:
    answer = httpx.get(served.url + path, trust_env=False)
    assert answer.status_code == 401
    assert "/auth/login" in answer.text and TRIAGE not in answer.text
    assert httpx.get(served.url + path, cookies={"_token": "made.up.token"}, trust_env=False).status_code in (401, 403)


@pytest.mark.parametrize("path", ["switch", "dead-letters"])
def test_without_a_login_nothing_is_done(served: Any, ledger: Ledger, path: str) -> None:
    assert httpx.post(f"{served.url}/careloom/{path}", data={"why": "x"}, trust_env=False).status_code == 401


def test_who_may_read_no_dag_is_shown_nothing(logged_in: Enter, ledger: Ledger) -> None:
    answer = logged_in("nobody").get()
    assert answer.status_code == 403 and TRIAGE not in answer.text
    assert logged_in("nobody").get("/careloom/runbooks/CareloomWorkParked").status_code == 403


def test_who_may_read_some_dags_sees_those_alone(logged_in: Enter, ledger: Ledger, happens) -> None:
    happens(TRIAGE, error_class=ErrorClass.PAYLOAD_INVALID)
    happens(NOTE, error_class=ErrorClass.SCENARIO_ERROR)
    page = logged_in("pre").get().text
    assert TRIAGE in page and "payload_invalid" in page
    assert "in_visit." not in page and "post_visit." not in page and "scenario_error" not in page
    assert section(page, "letters-number").strip() == "1"


# --- who may act ------------------------------------------------------------------------------------------------------


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


# --- forged requests --------------------------------------------------------------------------------------------------


def test_a_request_from_elsewhere_does_nothing_though_the_cookie_is_there(logged_in: Enter, ledger: Ledger) -> None:
    uma = logged_in("uma")
    fields = {"kind": "everything", "name": "", "to": "off", "why": "x"}
    token, others = uma.token(), logged_in("ada").token()
    for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
        assert uma.post("switch", fields, token=token, Origin=origin).status_code == 403, origin
    for forged in ("", "made-up", others):
        assert uma.post("switch", fields, token=forged).status_code == 403
    body = {"token": token, **fields}
    assert uma.client.post("/careloom/switch", data=body).status_code == 403  # no browser leaves out both headers
    origin = {"Origin": str(uma.client.base_url).rstrip("/")}
    assert uma.client.post("/careloom/switch", json=body, headers=origin).status_code == 415
    assert uma.client.post("/careloom/switch", data={"why": "x" * 70_000}, headers=origin).status_code == 413
    assert uma.client.get("/careloom/switch", params=body).status_code == 405
    assert ledger.switched_off() == []
    same = {"Sec-Fetch-Site": "same-origin"}
    assert uma.client.post("/careloom/switch", data=body, headers=same).status_code == 303


# --- patient data, and trouble ----------------------------------------------------------------------------------------


def test_no_page_has_a_patients_name(logged_in: Enter, ledger: Ledger, page_engine: Engine, happens) -> None:
    happens(TRIAGE, "a", ErrorClass.PAYLOAD_INVALID, f"the name {CANARY} is no date")
    happens(TRIAGE, "a")
    happens(NOTE, "b")
    run = ledger.take_run(NOTE, 1)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    ledger.inferred(item, Inference({"drafts": [{"text": CANARY}]}, {}))
    with page_engine.begin() as connection:
        assert connection.execute(
            text("SELECT count(*) FROM work WHERE drafts::text LIKE :c"), {"c": f"%{CANARY}%"}
        ).scalar()
    ada = logged_in("ada")
    for path in (
        "/careloom/",
        f"/careloom/?scenario={TRIAGE}",
        f"/careloom/?class={CANARY[:5]}",
        "/careloom/?done=off",
    ):
        assert CANARY not in ada.get(path).text


@contextmanager
def ledger_gone(postgres_url: URL) -> Iterator[None]:
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")

    def rename(before: str, after: str) -> None:
        with admin.connect() as connection:
            connection.execute(
                text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{before}'")
            )
            connection.execute(text(f"ALTER DATABASE {before} RENAME TO {after}"))

    rename("page_ledger", "page_ledger_gone")
    try:
        yield
    finally:
        rename("page_ledger_gone", "page_ledger")
        admin.dispose()


def test_without_the_ledger_it_says_so_and_airflow_goes_on(logged_in: Enter, page_engine: Engine, postgres_url) -> None:
    uma = logged_in("uma")
    token = uma.token()
    page_engine.dispose()
    with ledger_gone(postgres_url):
        answer = uma.get()
        assert answer.status_code == 503
        assert "The ledger does not answer" in answer.text and "/careloom/runbooks/CareloomLedgerDown" in answer.text
        fields = {"kind": "everything", "name": "", "to": "off", "why": "x"}
        assert uma.post("switch", fields, token=token).status_code == 503
        assert uma.get("/careloom/runbooks/CareloomLedgerDown").status_code == 200
        assert uma.get("/probe/plugins").status_code == 200
    assert uma.get().status_code == 200
