"""`careloom demo`: patients through all three stages on real components, shown live, counted, and stopped again."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipelines.demo.hospital import DemoPatient, HospitalServer
    from pipelines.demo.report import Report
    from pipelines.ledger.journal import Piece
    from pipelines.stack.environment import Stack
    from plugins.scenario import Stage

_SHOW_EVERY = 5.0


def demo(
    state: Annotated[Path, typer.Option(help="Where the stack keeps its data from one run to the next.")] = Path(
        ".careloom/stack"
    ),
    broker: Annotated[
        str | None, typer.Option(help="apache, tansu, or host:port; the best to be had by default.")
    ] = None,
    model: Annotated[
        tuple[str, str] | None, typer.Option(metavar="URL NAME", help="Any vLLM or OpenAI-compatible server.")
    ] = None,
    stand_in: Annotated[bool, typer.Option("--stand-in", help="No model: the stand-in answers, and says so.")] = False,
    patients: Annotated[int | None, typer.Option(min=1, help="Only so many of the patients.")] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Write what stands at the FHIR server in the end (drafts, Provenance, Device) into this NDJSON file."
        ),
    ] = None,
) -> None:
    """Carry real patients' events through the whole stack to FHIR drafts.

    Starts everything, loads the patients into the hospital's FHIR server, plays their journeys through all three
    stages, has a made-up clinician decide on most of the drafts, shows the progress and what was written, and stops
    what it started. The last line is one JSON object. A second run delivers the same events again, and neither writes
    nor decides anything new.

    Example: careloom demo --stand-in --patients 3
    """
    from pipelines.stack.environment import Stack
    from pipelines.stack.settings import ModelServer

    began = time.monotonic()
    wanted = ModelServer(model[0], model[1], "as served") if model else "stand-in" if stand_in else None
    with Stack(state, broker=broker, model=wanted, usual_ports=True, say=lambda text: _say(began, text)) as stack:
        _say(began, f"broker {stack.broker.name}: {stack.broker.why}")
        _say(began, f"model {stack.model.server.name}: {stack.model.why}")
        report = _run(stack, began, patients, save)
    _print(report)
    if report.failures:
        typer.echo("demo: " + "; ".join(report.failures), err=True)
    typer.echo(json.dumps(report.json_ready(), ensure_ascii=False))
    if report.failures:
        raise typer.Exit(1)


def _run(stack: Stack, began: float, count: int | None, save: Path | None) -> Report:
    from pipelines.config import load
    from pipelines.demo import clinician, hospital, play, report, seen
    from pipelines.ledger import Ledger, engine
    from pipelines.ledger.journal import created, pieces

    config = load(stack.config)
    source = config.sources[0]
    token = source.server_token.get_secret_value() if source.server_token else None
    server = hospital.HospitalServer(str(source.base_url), token)
    people = hospital.patients()[:count]
    # the history is there before the gateway listens: what happened long ago is no event
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(stack.start, [part for part in stack.parts if part not in ("gateway", "dispatcher")])
        server.wait_until_up(lambda: rest.done() and rest.exception() is not None)
        _load(server, people, began)
        rest.result()
    stack.start()
    prometheus = stack.kept.url("prometheus") if stack.monitor.part else None
    if not seen.before_the_first_event(prometheus):
        _say(began, "Prometheus has not seen every process yet; its dashboards may miss the beginning")
    database = engine(config.ledger.url.get_secret_value())
    try:
        created_before = created(database)
        played = play.play(config, database, server, people, _Progress(began, stand_in=config.model.stand_in))
        decided = clinician.decide(server, played.event_ids)
        _say(began, f"the demo's clinician has decided on {sum(decided.values())} drafts")
        decisions = clinician.await_decisions(database, server, played.event_ids)
        counted = seen.after_the_decisions(prometheus, sum(decisions.values()))
        if not (seen.after_the_last_draft(prometheus) and counted):
            _say(began, "Prometheus has not seen the end yet; its dashboards may miss it")
        work = pieces(database, played.event_ids)
        drafts = server.drafts({"Task", *(ref.split("/")[0] for piece in work for ref in piece.references)})
        if save is not None:
            save.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in drafts), encoding="utf-8")
        return report.Report(
            patients=len(people),
            events=len(played.event_ids),
            replayed=played.replayed,
            drafts=report.drafts_by_scenario(work),
            new=created(database) - created_before,
            decided=decided,
            decisions=decisions,
            unaccounted=Ledger(database).account().unaccounted,
            written_twice=hospital.doubles(drafts),
            unwritten=report.unwritten(work),
            hops=report.hop_seconds(work),
            broker=stack.broker.name,
            model=f"{config.model.name} {config.model.version}{' (stand-in)' if config.model.stand_in else ''}",
            seconds=round(time.monotonic() - began, 1),
        )
    finally:
        database.dispose()
        server.close()


def _load(server: HospitalServer, people: Sequence[DemoPatient], began: float) -> None:
    def progress(number: int) -> None:
        if number % 10 == 0 or number == len(people):
            _say(began, f"patients in the FHIR server: {number} of {len(people)}")

    written = server.load(people, progress)
    _say(began, f"{written} resources loaded" if written else "all of them were there already")


class _Progress:
    """Prints a line when a stage begins or ends, and every few seconds in between."""

    def __init__(self, began: float, *, stand_in: bool) -> None:
        self._began = began
        self._who = " [a stand-in answers, no model]" if stand_in else ""
        self._shown = 0.0
        self._stage: Stage | None = None

    def __call__(self, stage: Stage, work: Sequence[Piece], events: int) -> None:
        done = events == len({piece.event_id for piece in work}) and not any(piece.unfinished for piece in work)
        if stage is self._stage and not done and time.monotonic() - self._shown < _SHOW_EVERY:
            return
        self._stage, self._shown = stage, time.monotonic()
        states = Counter(piece.state.value for piece in work)
        written = [piece.seconds["total"] for piece in work if "total" in piece.seconds]
        latency = f", event to draft {sorted(written)[len(written) // 2]:.1f} s (median)" if written else ""
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "nothing yet"
        _say(self._began, f"{stage}: {events} events: {counts}{latency}{self._who}")


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, highlight=False)
    drafts = Table("scenario", "resources written", title="What stands at the FHIR server, labelled as AI drafts")
    for scenario, count in report.drafts.items():
        drafts.add_row(scenario, str(count))
    console.print(drafts)
    hops = Table("hop", "p50 s", "p95 s", title="Latency of each hop, from the one before")
    for name, hop in report.hops.items():
        hops.add_row(name, f"{hop.p50:.3f}", f"{hop.p95:.3f}")
    console.print(hops)
    said = ", ".join(f"{count} {verdict}" for verdict, count in report.decisions.items()) or "none"
    console.print(f"decisions of the demo's clinician: {said}; {sum(report.decided.values())} of them in this run")
    console.print(
        f"{report.events} events ({report.replayed} delivered again), {report.new} new resources, "
        f"{report.unaccounted} unaccounted for, {report.written_twice} written twice, {report.seconds:.0f} s"
    )


def _say(began: float, text: str) -> None:
    typer.echo(f"[{time.monotonic() - began:5.1f} s] {text}", err=True)
