"""`careloom replay`: run events again, from Kafka or from the FHIR server."""

from __future__ import annotations

import asyncio
import getpass
import json
import logging
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.configuration import configuration
from pipelines.cli.ledger_of import ledger_of
from pipelines.errors import ConfigError, LedgerError

if TYPE_CHECKING:
    from pipelines.config import Config
    from pipelines.dispatcher.matching import Reader
    from pipelines.ledger import Ledger
    from pipelines.replay.replay import Replayed

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
_AGO = re.compile(r"(\d{1,6})([mhd])")
_SHOWN = 20


def replay(
    why: Annotated[str, typer.Option(help="Why they are run again; stands in the ledger.")],
    since: Annotated[str, typer.Option(help="Events since then: 30m, 2h, 3d ago, or 2026-11-22T08:00+08:00.")] = "",
    until: Annotated[str, typer.Option(help="Events before then; now, when left out.")] = "",
    event: Annotated[str, typer.Option(help="This event alone: its id in the ledger, 64 hexadecimal digits.")] = "",
    scenario: Annotated[str, typer.Option(help="By this scenario alone; of all times unless --since is given.")] = "",
    source: Annotated[str, typer.Option(help="Only events of this configured source.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    by: Annotated[str, typer.Option(help="Who has it done; stands in the ledger. You, when left out.")] = "",
    config: Annotated[Path | None, typer.Option("--config", help="careloom.toml; else CARELOOM_CONFIG.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")] = False,
) -> None:
    """Run events again with the scenarios as they are installed now; what was written already is not written twice.

    Give at least one of --since, --event and --scenario; what is given must all hold. Bytes come from Kafka, and where
    its retention has taken them, from the FHIR server. Left out, and counted: work that is not finished yet, work that
    a person gave up (but for --event), and events with a dead letter in the way (`careloom dead-letters` decides).

    A scenario whose version has changed since writes new drafts beside the old. One that is new gets the events that it
    has missed. An event of which a newer version has come is marked stale and not written.

    Stop it at any time with Ctrl-C and call it again: nothing is lost or doubled.

    Exit code 0 when all that was selected is on its way, 1 when something is not (a dead letter, bytes that nobody has,
    a server that does not answer), 2 when called wrongly.

    Examples:

      careloom replay --since 2h --why "the FHIR server was restored from last night" --dry-run

      careloom replay --scenario post_visit.follow_up --since 7d --why "the plugin is new"

      careloom replay --event 4c0f... --why "its bytes were gone from Kafka"
    """
    if not (since or event or scenario):
        raise typer.BadParameter("say which events: --since, --event or --scenario")
    now = datetime.now(UTC)
    chosen = {
        "since": _time(since, now) if since else None,
        "until": _time(until, now) if until else now,
        "event_id": event or None,
        "scenario": scenario or None,
        "source": source or None,
    }
    settings = configuration(config)
    if source:
        settings.source(source)
    reader = _reader(settings, scenario)
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # what it would say is said below
    with ledger_of(config) as ledger:
        if event and not ledger.knows(event):
            raise LedgerError(
                f"the ledger knows no event {event}; `careloom dead-letters show` and Airflow's logs name it"
            )
        done = asyncio.run(
            _replay(settings, ledger, reader, chosen, by or getpass.getuser(), why, dry=dry_run, quiet=as_json)
        )
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        for line in _lines(done):
            typer.echo(line)
    if done.parked or done.gone:
        raise typer.Exit(1)


async def _replay(
    config: Config,
    ledger: Ledger,
    reader: Reader,
    chosen: dict[str, Any],
    by: str,
    why: str,
    *,
    dry: bool,
    quiet: bool,
) -> Replayed:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from pipelines.kafka.payloads import KafkaPayloads
    from pipelines.replay.replay import Replay
    from pipelines.replay.restoring import Restorer

    columns = (TextColumn("{task.description}"), MofNCompleteColumn(), TextColumn("events"), TimeElapsedColumn())
    async with AsyncExitStack() as closing:
        payloads = KafkaPayloads(config.kafka)
        closing.callback(payloads.close)
        restorer = Restorer(config)
        closing.push_async_callback(restorer.aclose)
        bar = closing.enter_context(Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet))
        task = bar.add_task("replay", total=None)

        def step(so_far: Replayed) -> None:
            held = "waiting for the dispatcher: too much waits in the ledger" if so_far.held_back else "replay"
            bar.update(task, total=so_far.selected, completed=so_far.looked_at, description=held)

        made = Replay(ledger, reader, payloads, restorer, max_waiting=config.dispatcher.max_waiting)
        return await made.run(**chosen, by=by, why=why, dry=dry, progress=step)


def _reader(config: Config, scenario: str) -> Reader:
    """Of the installed scenarios, or of one of them.

    Raises:
        ConfigError: it is not installed.
    """
    from pipelines.dispatcher.matching import reader_of
    from plugins import manager

    installed = manager.load(config.plugins.enabled, config.plugins.disabled_scenarios).scenarios
    if scenario and scenario not in installed:
        raise ConfigError(f"no scenario {scenario} is installed; installed are {', '.join(installed) or 'none'}")
    return reader_of([installed[scenario]] if scenario else installed.values())


def _time(text: str, now: datetime) -> datetime:
    """So long ago, or a time; one without a zone is this machine's.

    Raises:
        typer.BadParameter: it is neither.
    """
    ago = _AGO.fullmatch(text)
    try:
        if ago:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time; write 30m, 2h or 3d for so long ago, or 2026-11-22T08:00+08:00"
        ) from None


def _lines(done: Replayed) -> Iterator[str]:
    would = "would be" if done.replay is None else "are"
    name = "dry run" if done.replay is None else f"replay {done.replay}"
    yield f"{name}: {done.selected} events could start something"
    yield f"  {done.rows} pieces of work {would} run again, of {done.matched} that they start"
    for number, what in (
        (done.under_way, "are not finished yet and go on by themselves"),
        (done.discarded, "were given up by a person; --event runs one of them again"),
        (done.parked, "have a dead letter in the way: careloom dead-letters show ID, then retry or discard"),
    ):
        if number:
            yield f"  {number} {what}"
    for work_id in done.parked_ids[:_SHOWN]:
        yield f"    dead letter {work_id}"
    if done.restored:
        yield f"  {done.restored} events {'could be' if done.replay is None else 'were'} had from the FHIR server again"
    if done.gone:
        yield f"  {done.gone} events cannot be run again:"
    for event_id, why in done.gone_events[:_SHOWN]:
        yield f"    {event_id}: {why}"
    hidden = max(len(done.parked_ids), len(done.gone_events)) > _SHOWN
    if hidden:
        yield f"    the first {_SHOWN} of each are shown; --json has the first hundred"
