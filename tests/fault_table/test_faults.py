"""The list of faults: each has an alert that exists, and each alert a fault or a reason; what is ill can be made so."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from pipelines.stack.stand_in import NAME, create_app
from plugins import checks
from tests.fault_table import front, letters, results
from tests.fault_table.faults import FAULTS
from tests.fault_table.model import FAILING, SHARE, Ill
from tests.fault_table.runbook import RUNBOOKS
from tests.fault_table.trial import Outcome

ALERTS = {page.stem for page in RUNBOOKS.glob("*.md")}
GOOD = Outcome("gateway-dead", "the gateway is dead", "CareloomGatewayDown", 1.0, "now", 40, 50.4, "on-call", 9.0)


def test_every_fault_has_a_name_of_its_own_and_an_alert_that_exists() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 15
    assert {fault.alert for fault in FAULTS if fault.alert} <= ALERTS
    assert {page for fault in FAULTS for page in fault.pages} <= ALERTS


def test_every_alert_has_a_fault_that_is_made_or_a_reason_why_not() -> None:
    made = {fault.alert for fault in FAULTS} | {page for fault in FAULTS for page in fault.pages}
    assert made & set(results.NOT_MADE) == set()
    assert made | set(results.NOT_MADE) | {None} == ALERTS | {None}


def ask(client: TestClient, word: str = "x") -> str:
    schema = {"type": "object", "properties": {word: {"type": "string", "maxLength": 9}}, "required": [word]}
    asked = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    body = {"model": NAME, "messages": [{"role": "user", "content": "?"}], "response_format": asked}
    answer = client.post("/v1/chat/completions", json=body).raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def test_the_model_can_talk_garbage_and_be_well_again() -> None:
    client = TestClient(Ill(create_app()))
    assert is_json(ask(client))
    client.post("/fault", json={"mode": "garbage"})
    assert not is_json(ask(client))
    client.post("/fault", json={"mode": ""})
    assert is_json(ask(client))
    assert 'vllm:num_requests_running{model_name="stand-in"} 0' in client.get("/metrics").text
    assert client.get("/health").status_code == 200


def test_the_model_can_fail_in_one_scenario_now_and_then() -> None:
    client = TestClient(Ill(create_app()))
    client.post("/fault", json={"mode": "share"})
    answered = [is_json(ask(client, FAILING)) for _ in range(2 * SHARE)]
    assert [n for n, good in enumerate(answered) if not good] == [SHARE - 1, SHARE]  # asked once more: wrong again
    assert all(is_json(ask(client)) for _ in range(SHARE))


@pytest.mark.parametrize(
    ("mode", "method", "body", "status"),
    [
        ("", "POST", b"{}", None),
        ("refuse", "GET", b"", 403),
        ("reject-writes", "GET", b"", None),
        ("reject-writes", "POST", b"{}", 422),
        ("reject-one", "POST", b"{}", None),
        ("reject-one", "POST", front.MARK.encode() + front.KIND.encode(), 422),
        ("reject-one", "POST", front.MARK.encode(), None),
    ],
)
def test_the_fhir_server_refuses_what_its_mode_says(mode: str, method: str, body: bytes, status: int | None) -> None:
    assert front.refusal(mode, method, body) == status


@pytest.mark.parametrize(
    ("method", "path", "body", "seconds"),
    [
        ("POST", "/fhir", b'{"reference": "Patient/written-after-24-ab"}', 24.0),
        ("POST", "/fhir", b'{"reference": "Patient/written-after-0-ab"}', 0.0),
        ("POST", "/fhir", b'{"reference": "Patient/fault-ab"}', 0.0),
        ("POST", "/fhir/hospital", b'{"reference": "Patient/written-after-24-ab"}', 0.0),
        ("GET", "/fhir", b"written-after-24-ab", 0.0),
    ],
)
def test_the_fhir_server_takes_its_time_with_the_drafts_of_whom_it_is_told(
    method: str, path: str, body: bytes, seconds: float
) -> None:
    assert front.patience(method, path, body) == seconds


def test_the_way_of_messages_loses_one_in_so_many_and_says_that_all_is_well() -> None:
    passed: list[bytes] = []

    async def take(request: Request) -> Response:
        passed.append(await request.body())
        return Response(status_code=201)

    server = httpx.ASGITransport(Starlette(routes=[Route("/{path:path}", take, methods=["POST"])]))
    client = TestClient(front.create_app("http://127.0.0.1:1", "http://127.0.0.1:2", transport=server))
    client.post("/fault", json={"mode": "loses"})
    assert [client.post("/fhir/hospital", content=str(n)).status_code for n in range(front.LOST)] == [201, 201, 200]
    assert passed == [b"0", b"1"]


def test_an_outside_plugin_brings_a_scenario_for_every_ward() -> None:
    found = {scenario.id: scenario for scenario in letters.careloom_scenarios()}
    assert set(found) == {letters.scenario(ward) for ward in (*letters.WARDS, letters.ARCHIVE)}
    for one in found.values():
        checks.check(one)


def test_what_stands_before_the_fhir_server_is_an_application() -> None:
    assert isinstance(front.create_app("http://127.0.0.1:1", "http://127.0.0.1:2"), Starlette)


def test_an_outcome_is_good_when_its_alert_alone_was_paged_and_ended() -> None:
    assert GOOD.good
    assert not Outcome(**{**GOOD.__dict__, "others": ["CareloomWorkParked"]}).good
    assert not Outcome(**{**GOOD.__dict__, "paged": None}).good
    assert not Outcome(**{**GOOD.__dict__, "resolved": None}).good
    assert not Outcome(**{**GOOD.__dict__, "runbooks": {"A": ["curl: ended with 1"]}}).good


def test_outcomes_are_kept_and_shown_as_they_were(tmp_path: Path) -> None:
    results.write(tmp_path / "kept.json", [GOOD])
    assert results.read(tmp_path / "kept.json") == {"gateway-dead": GOOD}
    page = results.page([GOOD])
    assert "| on-call, 50 s | 9 s | nothing |" in page
    assert "1 of 1 faults" in page
    assert "- CareloomWatchdog: its fault was not made in these runs." in page


def test_the_page_says_what_its_outcomes_say() -> None:
    outcomes = results.ordered(results.read(results.FILE))
    assert len(outcomes) >= 15
    assert results.PAGE.read_text("utf-8") == results.page(outcomes), (
        "run: python -m tests.fault_table --page-only --write"
    )


def test_a_fault_has_time_to_be_paged_in() -> None:
    for fault in FAULTS:
        assert fault.waits + fault.windows >= 60, fault.name
