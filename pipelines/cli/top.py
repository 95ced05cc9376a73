"""`careloom top`: scenarios, what waits and why, dependencies and switches, live in a terminal of 80 by 24 or more."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipelines.cli.configuration import configuration
from pipelines.errors import LedgerError

if TYPE_CHECKING:
    from rich.console import Console, Group

    from pipelines.cli.watching import Sight, Watch

#: Seconds that a single look waits for Kafka to say how far the dispatcher is behind.
_PATIENCE = 6.0


def top(
    once: Annotated[bool, typer.Option("--once", help="Look once, print it, and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a look; with --once a single one.")] = False,
    every: Annotated[float, typer.Option(min=0.5, help="Seconds between looks.")] = 2.0,
    config: Annotated[Path | None, typer.Option(help="The configuration; else as `careloom switch` finds it.")] = None,
) -> None:
    """Watch every scenario: what waits and why, what runs, what is dead, how fast, and whether objectives are met.

    q or Ctrl-C ends it. Where the output is no terminal it looks once. Exit code 1 when --once finds no ledger.

    Examples:

      careloom top

      careloom top --once --json | jq '.scenarios[] | select(.parked > 0)'
    """
    from pipelines.cli.watching import Watch
    from plugins import manager

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # that it is away is shown as "lag ?"
    settings = configuration(config)
    watch = Watch(settings, manager.load(settings.plugins.enabled, settings.plugins.disabled_scenarios))
    try:
        if as_json and not once:
            _stream(watch, every)
        elif as_json or once or not sys.stdout.isatty():
            _print(watch, as_json)
        else:
            _live(watch, every)
    except KeyboardInterrupt:
        return
    finally:
        watch.close()


def _print(watch: Watch, as_json: bool) -> None:
    from rich.console import Console

    watch.settled(_PATIENCE)
    sight = watch.look()
    if as_json:
        typer.echo(json.dumps(plain(sight), ensure_ascii=False))
    else:
        console = Console(highlight=False)
        console.print(screen(sight, console.width, None))


def _stream(watch: Watch, every: float) -> None:
    """An object a look; a ledger that is down is an object too."""
    while True:
        try:
            line = plain(watch.look())
        except LedgerError as error:
            line = {"at": datetime.now(UTC).isoformat(), "error": str(error)}
        typer.echo(json.dumps(line, ensure_ascii=False))
        sys.stdout.flush()
        time.sleep(every)


def _live(watch: Watch, every: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    last: Sight | None = None
    down_since: datetime | None = None
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            trouble = ""
            try:
                last, down_since = watch.look(), None
            except LedgerError as error:
                down_since = down_since or datetime.now(UTC)
                trouble = f"{error}; since {down_since:%H:%M:%S} UTC, tried again every {every:g} s"
            live.update(_shown(last, console, trouble), refresh=True)
            if pressed(every):
                return


def _shown(sight: Sight | None, console: Console, trouble: str) -> Any:
    from rich.text import Text

    if sight is None:
        return Text(f"careloom top   {trouble}", style="bold red")
    return screen(sight, console.width, console.height, trouble)


@contextmanager
def _keys() -> Iterator[Any]:
    """Gives a wait that ends with True when q is pressed; the terminal is put back whatever happens."""
    import select

    if not sys.stdin.isatty():

        def asleep(seconds: float) -> bool:
            time.sleep(seconds)
            return False

        yield asleep
        return
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)

    def pressed(seconds: float) -> bool:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([number], [], [], left)[0] and sys.stdin.read(1) in ("q", "Q", ""):
                return True
        return False

    try:
        tty.setcbreak(number)
        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def screen(sight: Sight, width: int, height: int | None, trouble: str = "") -> Group:
    """One look for a terminal; with a height, what matters least is left out and counted."""
    from rich.console import Group
    from rich.text import Text

    lines = [*_troubles(sight), *_waits(sight), *_stays(sight)]
    room = None if height is None else max(height - 4, 4)
    shown = len(sight.now.scenarios)
    if room is not None:
        kept = min(len(lines), max(room // 3, room - shown))
        shown = min(shown, room - kept)
        if len(lines) > kept:
            lines = [*lines[: kept - 1], Text(f"  and {len(lines) - kept + 1} more: careloom top --once", style="dim")]
    head = Text(f"careloom top  {sight.now.at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC", style="bold")
    lag = "?" if sight.lag is None else str(sight.lag)
    poison = sum(sight.now.poison.values())
    head.append(f"   lag {lag}   poison {poison}   q: quit", style="not bold")
    first = Text(trouble[: width - 1], style="bold red") if trouble else Text("")
    return Group(head, first, _table(sight, shown), *lines)


def _table(sight: Sight, shown: int) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    table.add_column("SCENARIO", width=23, no_wrap=True, overflow="ellipsis")
    table.add_column("STATE", width=7, no_wrap=True, overflow="ellipsis")
    for name, size in (("WAIT", 5), ("RUN", 4), ("DEAD", 4), ("/MIN", 4), ("P50", 5), ("P95", 5), ("OBJ", 6)):
        table.add_column(name, width=size, justify="right", no_wrap=True)
    table.add_column("OLDEST", width=6, justify="right", no_wrap=True)
    order = sorted(sight.now.scenarios, key=lambda one: (not one.parked, not (one.waiting + one.running)))
    kept = order if shown >= len(order) else order[: max(shown - 1, 1)]
    for one in sorted(kept, key=sight.now.scenarios.index):
        pace, met = sight.pace.get(one.scenario), sight.timeliness.get(one.scenario)
        share = met.share if met else None
        missed = share is not None and one.promise is not None and share < one.promise.share
        style = "red" if one.parked or missed else "yellow" if one.condition.value != "running" else ""
        table.add_row(
            _short(one.scenario),
            one.condition.value.replace("_", " "),
            str(one.waiting),
            str(one.running),
            str(one.parked),
            str(pace.per_minute if pace else 0),
            _time(pace.p50) if pace else "-",
            _time(pace.p95) if pace else "-",
            "-" if share is None else f"{share:.0%}{'!' if missed else ''}",
            "-" if one.oldest is None else _time(one.oldest),
            style=style,
        )
    if len(kept) < len(order):
        table.add_row(f"and {len(order) - len(kept)} more", style="dim")
    return table


def _troubles(sight: Sight) -> Iterator[Any]:
    from rich.text import Text

    if sight.airflow:
        yield Text(f"  airflow: {sight.airflow}", style="red", no_wrap=True, overflow="ellipsis")
    for breaker in sight.now.down:
        yield Text(f"  {breaker.dependency} is down {breaker.line}", style="red", no_wrap=True, overflow="ellipsis")
    for switch in sight.now.switches:
        what = " ".join(part for part in (switch.kind, switch.name) if part)
        said = f"  switched off: {what}, by {switch.by} at {switch.since:%m-%d %H:%M}: {switch.why}"
        yield Text(said, style="yellow", no_wrap=True, overflow="ellipsis")
    for parked in sight.now.parked:
        said = f"  dead: {parked.items} of {_short(parked.scenario)} ({parked.error_class}), for {_time(parked.oldest)}"
        yield Text(said, style="red", no_wrap=True, overflow="ellipsis")


def _waits(sight: Sight) -> Iterator[Any]:
    from rich.text import Text

    from pipelines.cli.waterfall import WAITS

    for wait in sorted(sight.now.waits, key=lambda wait: -wait.items):
        why = " ".join(part for part in (wait.what, WAITS.get(wait.why.value, wait.why.value)) if part)
        until = f", until {wait.until.astimezone(UTC):%H:%M:%S}" if wait.until else ""
        said = f"  {wait.items} of {_short(wait.scenario)} wait: {why}{until} (oldest {_time(wait.oldest)})"
        yield Text(said, no_wrap=True, overflow="ellipsis")


def _stays(sight: Sight) -> Iterator[Any]:
    """Which scenarios have runs that Airflow shows as running though they may have nothing to do."""
    from rich.text import Text

    stay = [
        _short(one.scenario) + (f" ({one.staying})" if one.staying > 1 else "")
        for one in sight.now.scenarios
        if one.staying
    ]
    if stay:
        yield Text(f"  runs stay for: {', '.join(stay)}", style="dim", no_wrap=True, overflow="ellipsis")


def _short(scenario: str) -> str:
    """A scenario's id with its stage cut to what tells it: in_visit.icu_watch -> in/icu_watch."""
    stage, _, name = scenario.partition(".")
    return f"{stage.removesuffix('_visit')}/{name}" if name else scenario


def _time(seconds: float) -> str:
    """At most five signs."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 100:
        return f"{seconds:.0f}s"
    if seconds < 6000:
        return f"{seconds / 60:.0f}m"
    return f"{seconds / 3600:.0f}h" if seconds < 360_000 else f"{seconds / 86_400:.0f}d"


def plain(sight: Sight) -> dict[str, Any]:
    """One look as JSON has it."""
    whole: dict[str, Any] = json.loads(json.dumps(asdict(sight.now), default=_value))
    for one in whole["scenarios"]:
        pace, met = sight.pace.get(one["scenario"]), sight.timeliness.get(one["scenario"])
        one["pace"] = asdict(pace) if pace else None
        one["objective"] = {**asdict(met), "share": met.share} if met else None
        promise = one["promise"]
        one["objective_met"] = (
            None if not (met and promise and met.share is not None) else met.share >= promise["share"]
        )
    return {**whole, "lag": sight.lag, "airflow": sight.airflow}


def _value(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return value.value if isinstance(value, Enum) else str(value)
