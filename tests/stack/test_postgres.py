"""The embedded PostgreSQL: keeps its data, wants its password, tells its log nothing of a statement."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg
import pytest

from pipelines.stack import processes
from pipelines.stack.postgres import Postgres, make_database
from pipelines.stack.settings import Kept
from pipelines.stack.supervisor import Supervisor

pytestmark = pytest.mark.stack


def _start(supervisor: Supervisor, kept: Kept) -> None:
    part = Postgres(kept)
    part.prepare()
    for program in part.programs():
        supervisor.start(program)


def test_data_outlives_stop_and_kill_and_nothing_else_does(
    kept: Kept, supervisor: Supervisor, stack_id: str, tmp_path: Path
) -> None:
    _start(supervisor, kept)
    make_database(kept, "careloom")
    make_database(kept, "careloom")
    with psycopg.connect(kept.database("careloom"), autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")

    supervisor.kill("postgres")
    supervisor.wait_healthy("postgres")
    with psycopg.connect(kept.database("careloom"), autocommit=True) as connection:
        connection.execute("INSERT INTO kept VALUES (2)")
    backends = supervisor.pids("postgres")
    supervisor.stop()
    assert not any(processes.alive(pid) for pid in backends)

    again = Supervisor(stack_id, tmp_path / "logs")
    try:
        _start(again, kept)
        with psycopg.connect(kept.database("careloom")) as connection:
            assert connection.execute("SELECT n FROM kept ORDER BY n").fetchall() == [(1,), (2,)]
    finally:
        again.stop()


def test_only_the_password_opens_it_and_only_on_loopback(kept: Kept, supervisor: Supervisor) -> None:
    _start(supervisor, kept)
    url = kept.database("postgres")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.replace(kept.secrets["postgres-password"], "another"))
    with psycopg.connect(url) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()
            for name in ("listen_addresses", "fsync", "synchronous_commit", "unix_socket_directories")
        }
    assert shown == {
        "listen_addresses": ("127.0.0.1",),
        "fsync": ("on",),
        "synchronous_commit": ("on",),
        "unix_socket_directories": ("",),
    }


def test_a_failing_statement_leaves_none_of_its_values_in_the_log(kept: Kept, supervisor: Supervisor) -> None:
    _start(supervisor, kept)
    with psycopg.connect(kept.database("postgres"), autocommit=True) as connection:
        connection.execute("CREATE TABLE unique_names (name text PRIMARY KEY)")
        for _ in range(2):
            try:
                connection.execute("INSERT INTO unique_names VALUES ('ZZCANARY')")
                connection.execute("INSERT INTO unique_names VALUES (%s)", ("ZZCANARY",))
            except psycopg.errors.UniqueViolation:
                continue
    log = supervisor.log("postgres").read_text()
    assert "unique_names_pkey" in log
    assert "ZZCANARY" not in log


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_started_by_root_it_runs_as_its_own_user_even_below_a_folder_that_only_root_may_enter(
    kept: Kept, supervisor: Supervisor, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    kept.state_dir.chmod(0o700)
    _start(supervisor, kept)
    assert Path(f"/proc/{supervisor.pids('postgres')[0]}").stat().st_uid != 0
