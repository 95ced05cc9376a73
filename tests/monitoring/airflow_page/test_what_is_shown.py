"""The page in Airflow's own API server: it is there, and shows scenarios, what waits and why."""

from __future__ import annotations

import re

from sqlalchemy import Engine, text

from pipelines.failures.policy import BREAKS_AFTER
from pipelines.ledger import Ledger
from tests.monitoring.airflow_page.page_parts import ABSENT, NOTE, PAUSED, TRIAGE, Enter, section


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
