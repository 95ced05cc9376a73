"""`careloom dead-letters`: what failed for good, and a person's decision on each."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipelines.cli.ledger_of import ledger_of
from pipelines.errors import LedgerError

if TYPE_CHECKING:
    from pipelines.ledger import State

app = typer.Typer(
    help="What failed for good. Each holds back later events of its patient in its scenario until it is decided on.",
    no_args_is_help=True,
)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="careloom.toml; else CARELOOM_CONFIG.")]
WorkId = Annotated[int, typer.Argument(help="Its number in `careloom dead-letters list`.")]
By = Annotated[str, typer.Option(help="Who decides; stands in the ledger.")]


@app.command("list")
def list_(
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Show all of them, oldest first."""
    with ledger_of(config) as ledger:
        letters = ledger.dead_letters()
    if as_json:
        for letter in letters:
            typer.echo(json.dumps({**letter._mapping, "matched_at": letter.matched_at.isoformat()}))
        return
    table = Table("id", "scenario", "class", "what happened", "tries", "event matched at")
    for row in letters:
        table.add_row(
            str(row.id),
            row.scenario,
            row.error_class,
            row.error,
            str(row.attempts),
            f"{row.matched_at:%Y-%m-%d %H:%M:%S}",
        )
    Console().print(table if letters else "no dead letters")


@app.command()
def retry(
    work_id: WorkId,
    why: Annotated[str, typer.Option(help="Why it should succeed now.")],
    by: By = "",
    config: ConfigFile = None,
) -> None:
    """Let it be tried again, with all its attempts."""
    from pipelines.ledger import State

    _decide(work_id, State.WAITING, why, by, config)


@app.command()
def discard(
    work_id: WorkId,
    why: Annotated[str, typer.Option(help="Why no draft is needed.")],
    by: By = "",
    config: ConfigFile = None,
) -> None:
    """Give it up; the patient's later events go on."""
    from pipelines.ledger import State

    _decide(work_id, State.DISCARDED, why, by, config)


def _decide(work_id: int, target: State, why: str, by: str, config: Path | None) -> None:
    with ledger_of(config) as ledger:
        try:
            ledger.decide_dead_letter(work_id, target, by=by or getpass.getuser(), why=why)
        except LedgerError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None
    typer.echo(f"{work_id} is {target.value}")
