"""`careloom switch`: stop a scenario, a model or everything; what was in flight is kept and goes on afterwards."""

from __future__ import annotations

import getpass
import json
from datetime import UTC
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipelines.cli.configuration import configuration
from pipelines.cli.ledger_of import ledger_of

app = typer.Typer(help="Stop or resume a scenario, a model or everything; nothing is lost.", no_args_is_help=True)


class Kind(StrEnum):
    """What a switch stops."""

    EVERYTHING = "everything"
    SCENARIO = "scenario"
    MODEL = "model"


ConfigFile = Annotated[Path | None, typer.Option("--config", help="careloom.toml; else CARELOOM_CONFIG.")]
What = Annotated[Kind, typer.Argument(help="What to switch.")]
Name = Annotated[str, typer.Argument(help="The scenario's id or the model's name; nothing for everything.")]
By = Annotated[str, typer.Option(help="Who decides; stands in the ledger. You, when left out.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


@app.command()
def off(
    kind: What,
    why: Annotated[str, typer.Option(help="Stands in the ledger, for whoever finds it off.")],
    name: Name = "",
    by: By = "",
    config: ConfigFile = None,
) -> None:
    """Switch off. Events are still taken in; rules with red flags run while only a model is off."""
    _check(kind, name)
    _check_known(kind, name, config)
    with ledger_of(config) as ledger:
        ledger.switch_off(kind.value, name, by=by or getpass.getuser(), why=why)
    typer.echo(f"{_called(kind, name)} is off")


@app.command()
def on(
    kind: What,
    name: Name = "",
    why: Annotated[str, typer.Option(help="Stands in the ledger, for whoever asks later.")] = "",
    by: By = "",
    config: ConfigFile = None,
) -> None:
    """Switch on again; what waited goes on."""
    _check(kind, name)
    with ledger_of(config) as ledger:
        was_off = ledger.switch_on(kind.value, name, by=by or getpass.getuser(), why=why)
    typer.echo(f"{_called(kind, name)} is on" + ("" if was_off else " (it was not off)"))


@app.command("list")
def list_(config: ConfigFile = None) -> None:
    """Show what is off."""
    with ledger_of(config) as ledger:
        switches = ledger.switched_off()
    table = Table("what", "name", "by", "why", "since")
    for row in switches:
        table.add_row(row.kind, row.name, row.by, row.why, f"{row.since:%Y-%m-%d %H:%M:%S}")
    Console().print(table if switches else "nothing is switched off")


@app.command()
def history(
    limit: Annotated[int, typer.Option(min=1, help="So many of the last ones.")] = 50,
    as_json: Json = False,
    config: ConfigFile = None,
) -> None:
    """Show who has turned which switch when, off and on again, and why; newest first."""
    with ledger_of(config) as ledger:
        turned = ledger.switchings(limit)
    if as_json:
        for row in turned:
            said = {"at": row.at.isoformat(), "kind": row.kind, "name": row.name, "off": row.off}
            typer.echo(json.dumps({**said, "by": row.by, "why": row.why}, ensure_ascii=False))
        return
    table = Table("at", "what", "name", "to", "by", "why")
    for row in turned:
        at = f"{row.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
        table.add_row(at, row.kind, row.name, "off" if row.off else "on", row.by, row.why)
    Console().print(table if turned else "no switch was ever turned")


def _check(kind: Kind, name: str) -> None:
    if (kind is Kind.EVERYTHING) == bool(name):
        typer.echo("name the scenario or the model; `everything` takes no name", err=True)
        raise typer.Exit(2)


def _check_known(kind: Kind, name: str, config: Path | None) -> None:
    """Refuse a name that switches nothing: whoever mistypes it would believe that the scenario had stopped."""
    from plugins import manager

    settings = configuration(config)
    known = {
        Kind.EVERYTHING: [""],
        Kind.SCENARIO: sorted(manager.load(settings.plugins.enabled).scenarios),
        Kind.MODEL: [model.name for model in settings.registry.models],
    }[kind]
    if name not in known:
        typer.echo(f"there is no {kind.value} named {name}; there is {', '.join(known)}", err=True)
        raise typer.Exit(2)


def _called(kind: Kind, name: str) -> str:
    return f"{kind.value} {name}".strip()
