"""`careloom dead-letters`: what failed for good, and a person's decision on each."""

from __future__ import annotations

import getpass
import json
import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from pipelines.cli.choice import Choice
from pipelines.cli.configuration import configuration
from pipelines.cli.ledger_of import ledger_of
from pipelines.cli.letters import Name, poison_json, poison_lines, read_class, work_json, work_lines
from pipelines.errors import ErrorClass, PayloadGone, PoisonReason

if TYPE_CHECKING:
    from pipelines.ledger import Ledger, State
    from pipelines.ledger.dead_letters import Chosen

HELP = """\
What failed for good: pieces of work that are parked, and Kafka records that are no events (poison).

A parked piece of work (12) holds back later events of its patient in its scenario until somebody decides on it. Poison
(p12) holds back nobody: it was copied to the dead-letter topic and passed over.

Look at one:            careloom dead-letters show 12

Mended? Once more:      careloom dead-letters retry 12 --why "the plugin is repaired"

Not needed:             careloom dead-letters discard p12 --why "a test of the interface"

Many at once:           careloom dead-letters retry --class fhir_rejected --why "rule mended" --yes
"""

app = typer.Typer(help=HELP, no_args_is_help=True)

ConfigFile = Annotated[Path | None, typer.Option("--config", help="careloom.toml; else CARELOOM_CONFIG.")]
One = Annotated[str, typer.Argument(help="Its number in `careloom dead-letters list`: 12 or p12.", metavar="ID")]
Several = Annotated[
    list[str] | None, typer.Argument(help="Numbers: 12 or p12; or choose by options.", metavar="[ID...]")
]
By = Annotated[str, typer.Option(help="Who decides or looks; stands in the ledger. You, when left out.")]
ScenarioId = Annotated[str, typer.Option("--scenario", help="Only work of this scenario.")]
ClassName = Annotated[str, typer.Option("--class", "--reason", help="Only of this class, or poison of this reason.")]
All = Annotated[bool, typer.Option("--all", help="All of them, of both kinds.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without it the number is told and nothing is changed.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of text.")]


@app.command("list")
def list_(config: ConfigFile = None, scenario: ScenarioId = "", class_: ClassName = "", as_json: Json = False) -> None:
    """Show those that wait for a decision, oldest first: parked work, then poison.

    Examples:

      careloom dead-letters list --scenario pre_visit.triage

      careloom dead-letters list --class not_json --json
    """
    wanted = read_class(class_)
    with ledger_of(config) as ledger:
        work = [] if isinstance(wanted, PoisonReason) else ledger.dead_letters(_chosen(scenario, wanted))
        poison = [] if scenario or isinstance(wanted, ErrorClass) else ledger.poison(wanted)
    if as_json:
        for line in [*map(work_json, work), *map(poison_json, poison)]:
            typer.echo(json.dumps(line))
        return
    console = Console()
    if work:
        table = Table("id")
        for column in ("scenario", "class"):
            table.add_column(column, no_wrap=True)
        for column in ("what happened", "tries", "holds back"):
            table.add_column(column)
        for row in work:
            table.add_row(
                str(row.id),
                row.scenario,
                row.error_class,
                row.error,
                str(row.attempts),
                str(row.held_back),
            )
        console.print(table)
    if poison:
        table = Table("id", "reason", "record", "copied", "read at")
        for one in poison:
            where = f"{one.position.topic}[{one.position.partition}]@{one.position.offset}"
            table.add_row(
                f"p{one.id}", one.reason.value, where, "yes" if one.copy else "no", f"{one.at:%Y-%m-%d %H:%M:%S}"
            )
        console.print(table)
    if not work and not poison:
        console.print("no dead letters")


@app.command()
def show(
    letter: One,
    show_payload: Annotated[
        bool, typer.Option("--show-payload", help="Write the bytes to standard output: PATIENT DATA. Needs --why.")
    ] = False,
    why: Annotated[str, typer.Option(help="Why you look at patient data; stands in the ledger.")] = "",
    by: By = "",
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show all that is known of one: reason, step, attempts, the time of each hop, the runs, what waits behind it.

    Of the patient nothing is shown. With --show-payload the event's bytes, or the record's, are written to standard
    output and nothing else; that you looked, and why, is written to the ledger before.

    Examples:

      careloom dead-letters show 12

      careloom dead-letters show p3 --show-payload --why "asked by the interface team" > record.bin
    """
    name = Name.read(letter)
    if show_payload:
        if not why:
            raise typer.BadParameter("--show-payload needs --why: it stands in the ledger who saw what, and why")
        _show_payload(name, by or getpass.getuser(), why, config)
        return
    with ledger_of(config) as ledger:
        if name.poison:
            poison = ledger.poison_one(name.number)
            shown, lines = poison_json(poison), poison_lines(poison)
        else:
            row = ledger.dead_letter(name.number)
            shown, lines = work_json(row), work_lines(row)
    if as_json:
        typer.echo(json.dumps(shown))
        return
    typer.echo(f"dead letter {name}")
    for what, text in lines:
        typer.echo(f"  {what:<15} {text}".rstrip())


@app.command()
def retry(
    why: Annotated[str, typer.Option(help="Why it should succeed now.")],
    letters: Several = None,
    scenario: ScenarioId = "",
    class_: ClassName = "",
    all_: All = False,
    yes: Yes = False,
    by: By = "",
    config: ConfigFile = None,
) -> None:
    """Let it be tried again. Work gets all its attempts back; poison is read again, and recorded if it is an event now.

    Exit code 0 when all were taken up; 1 when some poison is still none or gone from Kafka, or nothing was changed.

    Examples:

      careloom dead-letters retry 12 13 p4 --why "the plugin is repaired"

      careloom dead-letters retry --scenario pre_visit.triage --why "the model answers again" --yes
    """
    from pipelines.ledger import State

    choice, who = Choice.read(letters or (), scenario, class_, all_), by or getpass.getuser()
    with ledger_of(config) as ledger:
        choice.confirm(ledger, yes)
        _decide_work(ledger, choice, State.WAITING, who, why)
        outcomes = Counter(_read_again(ledger, choice, config, who, why))
    if outcomes:
        typer.echo("poison: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    if set(outcomes) - {"recorded", "known"}:
        raise typer.Exit(1)


@app.command()
def discard(
    why: Annotated[str, typer.Option(help="Why no draft is needed, or why this is no event.")],
    letters: Several = None,
    scenario: ScenarioId = "",
    class_: ClassName = "",
    all_: All = False,
    yes: Yes = False,
    by: By = "",
    config: ConfigFile = None,
) -> None:
    """Give it up; the patient's later events go on. The ward must know that this draft will not come.

    Copies of poison stay in the dead-letter topic until its retention takes them.

    Examples:

      careloom dead-letters discard 12 --why "the encounter was entered in error"

      careloom dead-letters discard --class not_json --why "a test of the interface" --yes
    """
    from pipelines.ledger import State

    choice, who = Choice.read(letters or (), scenario, class_, all_), by or getpass.getuser()
    with ledger_of(config) as ledger:
        choice.confirm(ledger, yes)
        _decide_work(ledger, choice, State.DISCARDED, who, why)
        for name in choice.names:
            if name.poison:
                ledger.discard_poison(name.number, by=who, why=why)
                typer.echo(f"{name} is discarded")
        if choice.any_poison:
            discarded = ledger.discard_all_poison(choice.reason, by=who, why=why)
            typer.echo(f"{discarded} records that are no events are discarded")


def _decide_work(ledger: Ledger, choice: Choice, target: State, by: str, why: str) -> None:
    for work_id in choice.work_ids():
        ledger.decide_dead_letter(work_id, target, by=by, why=why)
        typer.echo(f"{work_id} is {target.value}")
    if choice.work is not None:
        changed = ledger.decide_dead_letters(choice.work, target, by=by, why=why)
        typer.echo(f"{changed} pieces of work are {target.value}")


def _read_again(ledger: Ledger, choice: Choice, config: Path | None, by: str, why: str) -> Iterator[str]:
    """Read the chosen poison again; yields what came of each."""
    from pipelines.replay.poison_retry import again_each

    _quiet()
    for row, outcome in again_each(ledger, configuration(config), choice.poison(ledger), by=by, why=why):
        typer.echo(f"p{row.id} is {outcome.value}")
        yield outcome.value


def _show_payload(name: Name, by: str, why: str, config: Path | None) -> None:
    from pipelines.kafka.payloads import KafkaPayloads
    from pipelines.kafka.records import Records
    from pipelines.replay.poison_retry import find

    settings = configuration(config)
    _quiet()
    with ledger_of(config) as ledger:
        if name.poison:
            poison = ledger.poison_one(name.number)
            ledger.disclosed(f"poison {name.number}", by=by, why=why)
            with closing(Records(settings.kafka)) as records:
                found = find(records, poison)
            if found is None:
                raise PayloadGone(f"Kafka has neither {name} nor its copy any more; nothing is shown")
            payload = found.record.value or b""
        else:
            ledger.dead_letter(name.number)
            event = ledger.event_of(name.number)
            ledger.disclosed(f"event of work {name.number}", by=by, why=why)
            with closing(KafkaPayloads(settings.kafka)) as payloads:
                payload = payloads.get(event)
    typer.echo("PATIENT DATA follows on standard output; who was shown it stands in the ledger", err=True)
    sys.stdout.buffer.write(payload)
    sys.stdout.buffer.flush()


def _chosen(scenario: str, wanted: ErrorClass | None) -> Chosen:
    from pipelines.ledger.dead_letters import Chosen

    return Chosen(scenario or None, wanted)


def _quiet() -> None:
    """What kafka-python would say to whoever reads the terminal is said in our own words."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
