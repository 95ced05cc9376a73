"""No page names a patient, and one without a ledger says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from pipelines.errors import ErrorClass
from pipelines.ledger import Inference, Ledger
from tests.monitoring.airflow_page.page_parts import CANARY, NOTE, TRIAGE, Enter


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
