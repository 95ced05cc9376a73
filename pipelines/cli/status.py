"""`careloom status`: each part's health, the lag, what became of the events, and the addresses to open."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.up import STATE

if TYPE_CHECKING:
    from pipelines.stack.status import Status


def status(
    state: Annotated[Path, typer.Option(help="The state folder that `careloom up` was given.")] = STATE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Show the health of each part, the lag, counts by state, and the addresses to open.

    Exit code 0 when everything is healthy, 1 when something is not or no stack runs.

    Examples:

      careloom status

      careloom status --json | jq .work
    """
    from pipelines.stack.status import status as ask

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what it would say is said below
    found = ask(state)
    if as_json:
        typer.echo(json.dumps(asdict(found), ensure_ascii=False))
    else:
        _show(found)
    if found.state == "degraded":
        raise typer.Exit(1)


def _show(found: Status) -> None:
    typer.echo(f"{found.state}, for {found.seconds:.0f} s")
    for what, why in found.chosen.items():
        typer.echo(f"  {what}: {why}")
    typer.echo("\nprogram          pid      restarts  health")
    for name, one in found.programs.items():
        typer.echo(f"{name:<15}  {one.pid:<7}  {one.restarts:<8}  {one.problem or 'healthy'}")
        if one.problem:
            typer.echo(f"{'':<36}log: {one.log}")
    lag = "not known" if found.lag is None else str(found.lag)
    typer.echo(f"\nrecords not yet taken from Kafka: {lag}")
    if found.work is None:
        typer.echo("the ledger does not answer")
    else:
        counts = ", ".join(f"{count} {state}" for state, count in found.work.items() if count) or "none yet"
        typer.echo(f"pieces of work: {counts}; unaccounted for: {found.unaccounted}")
    for dependency, why in found.down.items():
        typer.echo(f"{dependency} is down {why}; what needs it waits")
    typer.echo("\nto open:")
    for label, address in found.addresses.items():
        typer.echo(f"  {label:<44} {address}")
    typer.echo(f"  {'configuration, with tokens and passwords':<44} {found.config}")
