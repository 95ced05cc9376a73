"""Connections of the ledger's engine: asked whether they live when they have lain idle, and only then."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine, text

from pipelines.ledger import database


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch, ledger_engine: Engine) -> list[object]:
    """Connections that were asked."""
    asked: list[object] = []
    ping = ledger_engine.dialect.do_ping
    monkeypatch.setattr(
        ledger_engine.dialect, "do_ping", lambda connection: (asked.append(connection), ping(connection))
    )
    return asked


def pid(engine: Engine) -> int:
    with engine.begin() as connection:
        return connection.execute(text("SELECT pg_backend_pid()")).scalar_one()


def test_a_connection_in_use_a_moment_ago_is_not_asked(ledger_engine: Engine, pings: list[object]) -> None:
    assert pid(ledger_engine) == pid(ledger_engine)
    assert pings == []


def test_one_that_died_while_it_lay_idle_is_replaced(
    ledger_engine: Engine, ledger_url: str, pings: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_IDLE", 0.0)
    first = pid(ledger_engine)
    with psycopg.connect(ledger_url.replace("+psycopg", ""), autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
    assert pid(ledger_engine) != first
    assert len(pings) == 1


def test_who_cannot_wait_is_not_kept_waiting(ledger_url: str) -> None:
    made = database.impatient_engine(ledger_url)
    with made.connect() as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == f"{database.PATIENCE}s"
        assert (
            connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one() == f"{database.PATIENCE}s"
        )
    made.dispose()
