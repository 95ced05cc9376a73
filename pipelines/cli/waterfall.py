"""A piece of work's way as a waterfall: what was done, what it waited for and why, and which tries failed, in order.

Every second between the event's arrival and its end (or now) belongs to one hop, and a wait is named by what the ledger
noted: the dispatcher's hold-ups, earlier work of the same patient, how the try before ended.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from pipelines.ledger.journey import Journey, RunRow, Way
from pipelines.ledger.states import State

#: Shorter gaps are nobody's wait: the clocks of two hosts, and what a statement takes.
_SHORT = timedelta(milliseconds=20)

_HOLDUPS = {
    "switched_off": "switched off",
    "not_installed": "its scenario is not installed",
    "no_dag": "Airflow has no DAG of it that can run",
    "paused": "its DAG is paused in Airflow",
    "airflow_down": "Airflow is down",
    "runs_full": "as many runs of its scenario as may be are under way",
    "model_full": "its model has no room for more",
    "linger": "company for a shared run (dispatcher.linger)",
    "came_to_nothing": "the last run of its scenario came to nothing: held for a while",
}
#: `overview.Why` in words, for `careloom top` as well.
WAITS = {
    "everything_off": "everything is switched off",
    "scenario_off": "its scenario is switched off",
    "behind_parked": "an earlier one of its patient is a dead letter",
    "dependency_down": "down",
    "model_off": "its model is switched off",
    "backoff": "backoff",
    "behind_running": "an earlier one of its patient is being worked on",
    "behind_waiting": "an earlier one of its patient waits",
    "ready": "the next run takes it",
    **{name: text for name, text in _HOLDUPS.items() if name not in ("switched_off", "linger")},
}
_STEPS = {
    "payload": "bytes read from Kafka",
    "record": "record read",
    "rules": "rules",
    "knowledge": "passages looked up",
    "model": "model asked and answered",
    "guards": "guarded",
    "write": "written to the FHIR server",
}
_WORKED = {"inferred": "drafts in the outbox", "written": "written", "stale": "stale: a newer version came"}


class Kind(StrEnum):
    """What a hop is."""

    WORK = "work"
    WAIT = "wait"
    FAILED = "failed"
    MARK = "mark"  # something that is so from then on, and takes no time


@dataclass(frozen=True, slots=True)
class Hop:
    """One line of the waterfall.

    Attributes:
        end: None for what still goes on.
        detail: names and ids; of a failure its class.
        run_id: of the Airflow run that it happened in.
    """

    what: str
    kind: Kind
    start: datetime
    end: datetime | None
    detail: str = ""
    run_id: str = ""

    def seconds(self, now: datetime) -> float:
        """How long it took, or goes on."""
        return max(((self.end or now) - self.start).total_seconds(), 0.0)


@dataclass(frozen=True, slots=True)
class _Try:
    """One time that a row was in a run: how its entries in the journal follow one another."""

    run: RunRow
    entries: Sequence[Mapping[str, Any]]


def hops(journey: Journey, way: Way) -> list[Hop]:
    """The waterfall of one piece of work of an event."""
    found = list(_arrival(journey, way))
    since, after = way.at["matched"], ""
    for one in _tries(way):
        if _stayed(one.run, since):
            found += _taken(way, one, since, after)
        else:
            found += _waited(way, since, one.run.decided_at, after, first=not after, size=one.run.size)
            found += _asked(way, one)
        found += _ran(way, one, found[-1].end)
        since = max(found[-1].end or journey.now, since)
        after = _after(one.entries[-1]) if one.entries else "lost"
    if way.state is State.PARKED:
        found.append(Hop("dead letter", Kind.WAIT, since, None, f"for a person: careloom dead-letters show {way.id}"))
    elif way.waits is not None:
        found += _waiting(journey, way, since, after)
    elif way.state is State.DISCARDED:
        found.append(Hop("discarded by a person", Kind.MARK, way.at["finished"], way.at["finished"]))
    elif way.state is State.STALE and not any(hop.what == _WORKED["stale"] for hop in found):
        found.append(Hop(_WORKED["stale"], Kind.MARK, way.at["finished"], way.at["finished"]))
    return [*found, *_decided(way)]


def _decided(way: Way) -> Iterator[Hop]:
    """The wait for a person, once it is over; a decision is dated by another clock than ours."""
    if way.decision is None:
        return
    verdict, at = way.decision
    since = way.at.get("written", at)
    yield Hop("decided", Kind.WAIT, since, max(at, since), f"{verdict} by a person")


def _arrival(journey: Journey, way: Way) -> Iterator[Hop]:
    if way.replay:
        at = way.at["matched"]
        yield Hop("replayed by a person", Kind.MARK, at, at, f"replay {way.replay}")
        return
    yield Hop("received, and durable in Kafka", Kind.WORK, journey.received_at, journey.durable_at, journey.place)
    yield Hop("read and matched by the dispatcher", Kind.WORK, journey.durable_at, journey.matched_at)


def _tries(way: Way) -> list[_Try]:
    """The runs that it was in; entries of a person's decision belong to the run before."""
    entries: dict[str, list[Mapping[str, Any]]] = {run.run_id: [] for run in way.runs}
    current = ""
    for entry in way.journal:
        current = str(entry.get("run") or current)
        entries.setdefault(current, []).append(entry)
    return [_Try(run, entries[run.run_id]) for run in way.runs]


def _after(entry: Mapping[str, Any]) -> str:
    """What a wait is for that follows a try which ended so."""
    match entry["end"]:
        case "failed" | "lost":
            down = f", {entry['for']}" if entry.get("for") else ""
            return f"backoff after {entry.get('class')}{down}"
        case "waits":
            return f"{entry.get('for')} is down"
        case "behind":
            return "an earlier one of its patient goes first"
        case "held back":
            return "switched off, or an earlier one of its patient did not come through"
        case "retried":
            return "a person decided to try it again"
        case other:
            return str(other)


def _waited(way: Way, since: datetime, until: datetime, after: str, *, first: bool, size: int) -> Iterator[Hop]:
    """The wait between two tries, cut into named parts."""
    at = since
    for start, end, why in sorted(_named(way, since, until)):
        if end - max(start, at) < _SHORT:
            continue
        if start - at >= _SHORT:
            yield Hop("waited", Kind.WAIT, at, start, after or "for the dispatcher")
        yield Hop("waited", Kind.WAIT, max(start, at), end, why)
        at = end
    if until - at >= _SHORT:
        shared = f"for the dispatcher, and company: a run of {size}" if first and size > 1 else "for the dispatcher"
        yield Hop("waited", Kind.WAIT, at, until, after or shared)


def _named(way: Way, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime, str]]:
    earlier = [one for one in way.earlier if one.until > since]
    if earlier:
        last = max(earlier, key=lambda one: one.until)
        yield since, min(last.until, until), f"work {last.work} of its patient goes first ({last.state})"
    for why, start, end in way.held:
        began, ended = max(_time(start), since), min(_time(end), until)
        if ended > began:
            yield began, ended, _HOLDUPS.get(str(why), str(why))


def _stayed(run: RunRow, since: datetime) -> bool:
    """Whether a run was under way already when a row began to wait: one that stays takes rows itself."""
    return run.posted_at is not None and run.posted_at < since


def _taken(way: Way, one: _Try, since: datetime, after: str) -> Iterator[Hop]:
    """The wait for a run that stays."""
    first = _first(way, one, since)
    end = None if first is None and _running(way, one) else first or since
    yield Hop("waited", Kind.WAIT, since, end, after or "for a run that stays", one.run.run_id)


def _asked(way: Way, one: _Try) -> Iterator[Hop]:
    """From the decision on a run to its task."""
    run, running = one.run, _running(way, one)
    shared = f"{run.size} rows share it" if run.size else "it stands for what comes"
    yield Hop("run asked of Airflow", Kind.WORK, run.decided_at, run.posted_at, shared, run.run_id)
    if run.posted_at is None and running:
        return
    at = run.posted_at or run.decided_at
    first = _first(way, one, at)
    if first is None and not one.entries:
        yield Hop("queued in Airflow", Kind.WAIT, at, None if running else run.closed_at, "", run.run_id)
        return
    yield Hop("queued in Airflow, task started", Kind.WAIT, at, first or at, "", run.run_id)


def _running(way: Way, one: _Try) -> bool:
    return way.runs[-1] is one.run and not way.over and way.run_id == one.run.run_id


def _first(way: Way, one: _Try, after: datetime) -> datetime | None:
    """When a run's task took the row; None where it has not yet."""
    started = way.at.get("started") if way.runs[-1] is one.run else None
    return min((time for time in (started, _began(one.entries)) if time is not None and time >= after), default=None)


def _ran(way: Way, one: _Try, at: datetime | None) -> Iterator[Hop]:
    """What a run's task did with the row, and how the row left it."""
    if at is None:
        return
    run, before = one.run, "its turn in the run"
    for entry in one.entries:
        for hop in _steps(entry, run.run_id):
            if hop.start - at >= _SHORT:
                yield _between(before, at, hop.start, run.run_id)
            yield hop
            at, before = max(at, hop.end or at), ""
        before = "its turn to be written" if entry["end"] == "inferred" else ""
        end = _time(entry["to"])
        yield _ended(entry, at, end, run.run_id)
        at = max(at, end)
    if _running(way, one):
        yield Hop("being worked on", Kind.WORK, at, None, way.state.value, run.run_id)


def _between(waits: str, start: datetime, end: datetime, run_id: str) -> Hop:
    """What lies before a step: a wait for one of the run's slots, or work that is no step of its own."""
    if waits:
        return Hop("waited", Kind.WAIT, start, end, waits, run_id)
    return Hop("in between", Kind.WORK, start, end, "drafts made and checked, the ledger asked", run_id)


def _began(entries: Sequence[Mapping[str, Any]]) -> datetime | None:
    return _time(entries[0]["to"]) - timedelta(milliseconds=entries[0].get("ms", 0)) if entries else None


def _steps(entry: Mapping[str, Any], run_id: str) -> Iterator[Hop]:
    """What a try did, each step at its place."""
    began = _time(entry["to"]) - timedelta(milliseconds=entry.get("ms", 0))
    for name, start, took, *more in entry.get("steps", ()):
        detail, error = (*more, "", "")[:2]
        kind = Kind.FAILED if error else Kind.WORK
        at = began + timedelta(milliseconds=start)
        said = f"{detail} {error}".strip()
        yield Hop(_STEPS.get(name, name), kind, at, at + timedelta(milliseconds=took), said, run_id)


def _ended(entry: Mapping[str, Any], at: datetime, end: datetime, run_id: str) -> Hop:
    how = entry["end"]
    if how in _WORKED:
        return Hop(_WORKED[how], Kind.WORK, min(at, end), end, "", run_id)
    if how in ("failed", "parked", "lost"):
        named = {"failed": "try failed", "parked": "failed for good", "lost": "its worker was lost"}[how]
        detail = " ".join(str(entry[key]) for key in ("class", "for") if entry.get(key))
        return Hop(named, Kind.FAILED, min(at, end), end, detail, run_id)
    if how in ("retried", "discarded"):
        return Hop(f"{how} by a person", Kind.MARK, end, end)
    return Hop("left the run", Kind.MARK, end, end, _after(entry), run_id)


def _waiting(journey: Journey, way: Way, since: datetime, after: str) -> Iterator[Hop]:
    """The wait that still goes on, named as `careloom top` names it."""
    why, what, until = way.waits or ("ready", "", None)
    detail = " ".join(part for part in (what, WAITS.get(why, why)) if part)
    if until is not None:
        detail += f" until {until.astimezone(UTC):%H:%M:%S} UTC"
    if why == "ready" and after:
        detail += f"; before: {after}"
    yield Hop("waits", Kind.WAIT, since, None, detail)


def _time(milliseconds: Any) -> datetime:
    return datetime.fromtimestamp(float(milliseconds) / 1000, UTC)
