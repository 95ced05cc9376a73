"""`careloom send`: post files of events to the running gateway."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipelines.cli.configuration import configuration
from pipelines.cli.up import STATE

if TYPE_CHECKING:
    from pipelines.cli.sender import Sent
    from pipelines.config import Config

_SHOWN = 20


def send(
    files: Annotated[
        list[Path] | None, typer.Argument(help="FHIR .json, .xml or .ndjson; each also .gz.", metavar="FILE...")
    ] = None,
    case: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A golden case: put its record and event into the source's FHIR server."),
    ] = None,
    source: Annotated[str, typer.Option(help="Send as this configured source; the only one when left out.")] = "",
    config: Annotated[Path | None, typer.Option(help="careloom.toml; else CARELOOM_CONFIG, else --state's.")] = None,
    state: Annotated[Path, typer.Option(help="The state folder that `careloom up` was given.")] = STATE,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Post resources, Bundles and notifications to the gateway, and say what became of them.

    With --case nothing is posted: the case happens at the hospital, whose server tells the gateway.

    Exit code 0 when all were taken (durable in Kafka), 1 when some were not, 2 when called wrongly (nothing was sent).

    Examples:

      careloom send patient.json bundle.json.gz

      careloom send --source hospital encounters.ndjson --json

      careloom send --case my-scenario/tests/golden/en_red_flag.json
    """
    from pipelines.errors import ConfigError

    if bool(files) == bool(case):
        raise ConfigError("give files to post, or --case FILE; one of both")
    settings = configuration(config, state)
    name = source or _only_source(settings)
    if case:
        _happen(settings, case, name, as_json=as_json)
        return
    _post(settings, files or [], name, as_json=as_json)


def _happen(settings: Config, cases: list[Path], source: str, *, as_json: bool) -> None:
    from pipelines.authoring.happening import happen

    put = happen(settings, cases, source)
    said = f"{put} resources put into the FHIR server of {source}, which tells the gateway; see `careloom status`"
    typer.echo(json.dumps({"put": put}) if as_json else said)


def _post(settings: Config, files: list[Path], name: str, *, as_json: bool) -> None:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from pipelines.cli.sender import send_files

    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TextColumn("taken"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=as_json) as bar:
        task = bar.add_task("sending", total=0)

        def step(file: Path, result: str) -> None:
            total = bar.tasks[0].total or 0
            bar.update(task, total=total + 1, advance=int(result == "taken"), description=file.name)

        sent = send_files(settings, files, name, progress=step)
    if as_json:
        typer.echo(json.dumps(asdict(sent), ensure_ascii=False))
    else:
        _show(sent)
    if sent.taken != sent.requests:
        raise typer.Exit(1)


def _only_source(config: Config) -> str:
    from pipelines.errors import ConfigError

    names = [source.name for source in config.sources]
    if len(names) != 1:
        raise ConfigError(f"name the source to send as with --source; configured: {', '.join(names) or 'none'}")
    return names[0]


def _show(sent: Sent) -> None:
    typer.echo(
        f"{sent.requests} sent from {sent.files} files in {sent.seconds:.1f} s: {sent.taken} taken,"
        f" {sent.refused} refused, {sent.failed} failed"
    )
    for problem in sent.problems[:_SHOWN]:
        where = problem.file if problem.line is None else f"{problem.file}:{problem.line}"
        typer.echo(f"  {where}: {problem.status or 'no answer'}: {problem.why}")
    if len(sent.problems) > _SHOWN:
        typer.echo(f"  and {len(sent.problems) - _SHOWN} more; --json has all")
