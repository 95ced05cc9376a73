"""The ledger of a configuration, for commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from pipelines.cli.configuration import configuration
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pipelines.ledger import Ledger


@contextmanager
def ledger_of(config: Path | None) -> Iterator[Ledger]:
    """The ledger that `careloom.toml` names; a command that cannot have it ends with exit code 1 and says why."""
    from pipelines.ledger import Ledger

    with engine_of(config) as engine:
        yield Ledger(engine)


@contextmanager
def engine_of(config: Path | None) -> Iterator[Engine]:
    """Its database, for a command that only reads; ends as `ledger_of` does."""
    from sqlalchemy.exc import OperationalError

    from pipelines.ledger import engine

    try:
        url = configuration(config).ledger.url.get_secret_value()
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    made = engine(url, pool_size=1)
    try:
        yield made
    except OperationalError:
        typer.echo("the ledger does not answer: is the stack running (`careloom status`)? see ledger.url", err=True)
        raise typer.Exit(1) from None
    finally:
        made.dispose()
