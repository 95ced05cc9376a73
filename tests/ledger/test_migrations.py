"""The migrations create exactly the tables that the code knows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.engine import URL, make_url

from pipelines.ledger import database, engine
from pipelines.ledger.tables import metadata


def test_migrated_tables_equal_the_metadata(ledger_engine: Engine):
    with ledger_engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "version_table": "careloom_schema"}
        )
        assert compare_metadata(context, metadata) == []


def test_partial_indexes_are_migrated_with_their_conditions(ledger_url: str, postgres_url: URL):
    """alembic compares no conditions of indexes: a second database made from the metadata does."""
    migrated = engine(ledger_url)
    with migrated.begin() as connection:
        connection.execute(text("CREATE SCHEMA made"))
    made = create_engine(
        make_url(ledger_url).update_query_dict({"options": "-c search_path=made"}), hide_parameters=True
    )
    metadata.create_all(made)
    query = text("SELECT indexname, replace(indexdef, :schema, '') FROM pg_indexes WHERE schemaname = :schema_name")
    with migrated.connect() as connection:
        by_schema = [
            {
                name: definition
                for name, definition in connection.execute(query, {"schema": f"{schema}.", "schema_name": schema})
                if name != "careloom_schema_pkc"
            }
            for schema in ("public", "made")
        ]
    made.dispose()
    migrated.dispose()
    assert by_schema[0] == by_schema[1]


def test_two_processes_that_migrate_at_once_do_no_harm(postgres_url: URL):
    name = "ledger_twice"
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    url = postgres_url.set(database=name).render_as_string(hide_password=False)
    program = f"from pipelines.ledger import migrate; migrate({url!r})"
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    codes = [process.wait(timeout=120) for process in processes]
    made = engine(url)
    assert set(metadata.tables) <= set(inspect(made).get_table_names())
    made.dispose()
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()
    assert codes == [0, 0]


def test_failures_counted_before_have_a_hop_after_and_their_sums_stay(ledger_url: str):
    """By alembic itself: what a ledger of an earlier release counted goes on being counted."""
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    config.attributes["url"] = ledger_url
    command.downgrade(config, "0008")
    made = engine(ledger_url)
    with made.begin() as connection:
        connection.execute(
            text("INSERT INTO failures VALUES ('a.b', 'fhir_unavailable', 3), ('a.b', 'worker_lost', 4)")
        )
    command.upgrade(config, "head")
    with made.begin() as connection:
        rows = connection.execute(text("SELECT error_class, hop, count FROM failures ORDER BY 1")).all()
        connection.execute(text("INSERT INTO failures VALUES ('a.b', 'fhir_unavailable', 2, 'written')"))
    assert [tuple(row) for row in rows] == [("fhir_unavailable", "context", 3), ("worker_lost", "started", 4)]
    command.downgrade(config, "0008")
    with made.connect() as connection:
        sums = connection.execute(text("SELECT error_class, count FROM failures ORDER BY 1")).all()
    made.dispose()
    assert [tuple(row) for row in sums] == [("fhir_unavailable", 5), ("worker_lost", 4)]
