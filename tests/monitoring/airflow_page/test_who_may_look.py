"""Who sees what of the page: Airflow's own logins and permissions decide."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from pipelines.errors import ErrorClass
from pipelines.ledger import Ledger
from tests.monitoring.airflow_page.page_parts import NOTE, TRIAGE, Enter, section


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
