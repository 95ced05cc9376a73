"""`careloom trace`: an event's way as a waterfall: each wait named, each failed try by its class; nothing private."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from pipelines.cli.configuration import configuration
from pipelines.cli.ledger_of import engine_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from pipelines.cli.waterfall import Hop
    from pipelines.ledger.journey import Journey, Way

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
#: Events that are listed when a name means several.
_LISTED = 20


def trace(
    event: Annotated[
        str, typer.Argument(help="An event's identity or its first digits, a trace id, a work's number, or a run's id.")
    ] = "",
    last: Annotated[bool, typer.Option("--last", help="The newest event.")] = False,
    slowest: Annotated[str, typer.Option(help="The slowest event of so long a time: 30m, 1h, 2d.")] = "",
    scenario: Annotated[
        str, typer.Option(help="With --last and --slowest: of this scenario; else: only its work.")
    ] = "",
    config: Annotated[Path | None, typer.Option(help="The configuration; else as `careloom switch` finds it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object an event.")] = False,
) -> None:
    """Show where one event's time went: each hop, each wait with its reason, each try that failed, the run in Airflow.

    Where a number or an id comes from: `careloom dead-letters list` (work), Airflow's UI (run), a log line (event_id,
    trace_id). Nothing of the patient is shown.

    Examples:

      careloom trace --last

      careloom trace --slowest 1h --scenario pre_visit.triage

      careloom trace 4711 --json | jq .ways[0].hops
    """
    from pipelines.ledger import journey as reading

    if [bool(event), last, bool(slowest)].count(True) != 1:
        raise typer.BadParameter("name an event, or say --last, or --slowest 1h; one of the three")
    seconds = _seconds(slowest) if slowest else 0.0
    airflow = configuration(config).airflow.url
    with engine_of(config) as engine:
        found = _found(engine, event, last, seconds, scenario)
        if len(found) > 1 and not as_json:
            _list(engine, found)
            return
        for event_id in found:
            journey = reading.journey(engine, event_id)
            if as_json:
                typer.echo(json.dumps(_plain(journey, scenario, airflow), ensure_ascii=False))
            else:
                _show(journey, scenario, airflow)


def _found(engine: Engine, event: str, last: bool, seconds: float, scenario: str) -> Sequence[str]:
    from pipelines.errors import LedgerError
    from pipelines.ledger import journey as reading

    if event:
        return reading.find(engine, event)
    one = reading.last(engine, scenario or None) if last else reading.slowest(engine, seconds, scenario or None)
    if one is None:
        raise LedgerError("no event has started anything" + (f" of {scenario}" if scenario else "") + " in that time")
    return [one]


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time; say 90s, 30m, 1h or 2d", param_hint="--slowest")
    return float(found[1]) * _UNITS[found[2]]


def _list(engine: Engine, found: Sequence[str]) -> None:
    from pipelines.ledger import journey as reading

    typer.echo(f"{len(found)} events; name one of them, or say --json for all:")
    for event_id in found[:_LISTED]:
        journey = reading.journey(engine, event_id)
        for way in journey.ways:
            typer.echo(f"  {event_id[:16]}  {way.scenario:<32} {way.state.value:<10} {_total(journey, way)}")
    if len(found) > _LISTED:
        typer.echo(f"  and {len(found) - _LISTED} more")


def _ways(journey: Journey, scenario: str) -> Iterator[Way]:
    return (way for way in journey.ways if scenario in ("", way.scenario))


def _end(journey: Journey, way: Way) -> datetime:
    return way.at.get("written") or way.at.get("finished") or journey.now


def _total(journey: Journey, way: Way) -> str:
    seconds = (_end(journey, way) - way.at["received"]).total_seconds()
    return f"{_time(seconds)}{'' if way.over else ' so far'}"


def _show(journey: Journey, scenario: str, airflow: str) -> None:
    from rich.console import Console
    from rich.text import Text

    from pipelines.cli.waterfall import hops

    console = Console(highlight=False)
    console.print(f"event {journey.event_id}", style="bold")
    console.print(f"{journey.resource_type} {journey.change}, source {journey.source}; {journey.place}")
    console.print(f"trace {journey.trace_id or 'none'}; received {journey.received_at:%Y-%m-%d %H:%M:%S.%f %Z}")
    if not journey.ways:
        console.print("it started no scenario")
    for way in _ways(journey, scenario):
        tries = f", {way.attempts} attempts of its own failed" if way.attempts else ""
        console.print(
            f"\n{way.scenario} {way.version}: {way.state.value}, {_total(journey, way)} from event"
            f" (work {way.id}{tries})",
            style="bold",
        )
        found = hops(journey, way)
        end, width = _end(journey, way), max(console.width - 62, 8)
        for hop in found:
            line = Text(f"  {hop.what:<34.34} ")
            line.append(_bar(hop, found[0].start, end, width), style=_COLOURS[hop.kind.value])
            line.append(f" {_time(hop.seconds(journey.now)):>8} ")
            line.append(hop.detail)
            console.print(line, soft_wrap=True)
        for run in way.runs:
            console.print(f"  run {run.run_id}: {_url(airflow, way.scenario, run.run_id)}", soft_wrap=True)


_COLOURS = {"work": "green", "wait": "yellow", "failed": "red", "mark": "cyan"}
_SIGNS = {"work": "█", "wait": "░", "failed": "▓", "mark": "|"}


def _bar(hop: Hop, start: datetime, end: datetime, width: int) -> str:
    """Where in the whole it lies; at least one sign long."""
    whole = max((end - start).total_seconds(), 1e-6)
    left = min(int((hop.start - start).total_seconds() / whole * width), width - 1)
    ended = hop.end or end
    right = min(max(round((ended - start).total_seconds() / whole * width), left + 1), width)
    left = max(left, 0)
    return (" " * left + _SIGNS[hop.kind.value] * (right - left)).ljust(width)


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _url(airflow: str, scenario: str, run_id: str) -> str:
    return f"{airflow.rstrip('/')}/dags/{quote(scenario, safe='')}/runs/{quote(run_id, safe='')}"


def _plain(journey: Journey, scenario: str, airflow: str) -> dict[str, Any]:
    from pipelines.cli.waterfall import hops

    return {
        "event_id": journey.event_id,
        "trace_id": journey.trace_id,
        "source": journey.source,
        "resource_type": journey.resource_type,
        "change": journey.change,
        "place": journey.place,
        "received_at": journey.received_at.isoformat(),
        "ways": [
            {
                "work": way.id,
                "scenario": way.scenario,
                "version": way.version,
                "stage": way.stage,
                "state": way.state.value,
                "seconds": (_end(journey, way) - way.at["received"]).total_seconds(),
                "attempts": way.attempts,
                "error_class": way.error_class,
                "model": way.model,
                "hops": [
                    {
                        "what": hop.what,
                        "kind": hop.kind.value,
                        "start": hop.start.isoformat(),
                        "end": hop.end.isoformat() if hop.end else None,
                        "seconds": round(hop.seconds(journey.now), 3),
                        "detail": hop.detail,
                        "run_id": hop.run_id,
                    }
                    for hop in hops(journey, way)
                ],
                "runs": [{"run_id": run.run_id, "url": _url(airflow, way.scenario, run.run_id)} for run in way.runs],
            }
            for way in _ways(journey, scenario)
        ],
    }
