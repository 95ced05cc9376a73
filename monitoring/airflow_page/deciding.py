"""What people do on the page: switches and dead letters, by the ledger's own verbs, as far as Airflow lets them.

What concerns one scenario needs editing its DAG; what concerns all of them (everything, a model, records that are no
events yet) needs editing every DAG of careloom. Who did it is whom Airflow knows; why is asked for, and stands in the
ledger. Airflow's audit log gets what and who, and never why: people's words stay out of Airflow's database.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice

from fastapi import HTTPException

from monitoring.airflow_page import access
from monitoring.airflow_page.access import Visitor
from monitoring.airflow_page.house import House, Inside, Unavailable, asking
from monitoring.airflow_page.view import Filter, scenarios_of
from pipelines.errors import CareloomError, LedgerError, PoisonReason
from pipelines.ledger import State
from pipelines.ledger.dead_letters import PoisonRow
from pipelines.ledger.overview import Overview
from pipelines.replay.poison_retry import Outcome, again_each

#: Records that are read from Kafka again by one click at most: it is answered within seconds.
READ_AGAIN = 100
#: Seconds that Kafka has for an answer: a thread of Airflow's waits for it.
PATIENCE = 5.0
_LONGEST_WHY = 500


@dataclass(frozen=True, slots=True)
class Said:
    """What was done: a word of `pages`, and how many."""

    what: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to become of which dead letters.

    Attributes:
        poison: records that are no events; else parked work.
        verb: "retry" or "discard".
        ids: numbers, when some were ticked.
        everything: all that the filter shows; then `expected` is how many they were when it was shown.
        chosen: the filter.
        why: the person's reason.
    """

    poison: bool
    verb: str
    ids: tuple[str, ...]
    everything: bool
    expected: str
    chosen: Filter
    why: str


def switch(house: House, visitor: Visitor, *, kind: str, name: str, to: str, why: str) -> Said:
    """Switch a scenario, a model or everything off, for which a reason is needed, or on.

    The ledger keeps who has turned what, and why (`careloom switch history`); Airflow's audit log keeps who and when.

    Raises:
        HTTPException: not permitted (403), no reason, or nothing of that name (400).
        Unavailable: the ledger does not answer.
    """
    inside = house.inside()
    if to not in ("off", "on") or name not in _switchable(inside, house.seen().now, kind, to):
        raise HTTPException(400, "There is nothing of that name to be switched.")
    _may(house, visitor, {name} if kind == "scenario" else None)
    with asking():
        if to == "off":
            inside.ledger.switch_off(kind, name, by=visitor.name, why=_reason(why))
            said = Said("off")
        else:
            said = Said(
                "on" if inside.ledger.switch_on(kind, name, by=visitor.name, why=why and _reason(why)) else "was-on"
            )
    house.changed()
    access.note(visitor, f"switch_{to}", {"kind": kind, "name": name}, name if kind == "scenario" else None)
    return said


def _switchable(inside: Inside, now: Overview, kind: str, to: str) -> set[str]:
    """What can be switched; what is off can be switched on again though nobody has it installed any more."""
    known: dict[str, set[str]] = {
        "everything": {""},
        "scenario": set(scenarios_of(inside, now)),
        "model": {model.name for model in inside.config.registry.models},
    }
    off = {switch.name for switch in now.switches if switch.kind == kind} if to == "on" else set()
    return known.get(kind, set()) | off


def decide(house: House, visitor: Visitor, wanted: Wanted) -> Said:
    """Retry or discard dead letters.

    Raises:
        HTTPException: not permitted (403), nothing chosen or no reason (400), or others than were shown (409).
        Unavailable: the ledger, or Kafka, does not answer.
    """
    inside, why = house.inside(), _reason(wanted.why)
    if wanted.verb not in ("retry", "discard"):
        raise HTTPException(400, "Dead letters are retried or discarded.")
    if not wanted.everything and not wanted.ids:
        raise HTTPException(400, "Tick the ones that are meant, or choose all that the filter shows.")
    with asking():
        act = _poison if wanted.poison else _work
        said = act(house, inside, visitor, wanted, why)
    house.changed()
    if said.number:
        what = {"kind": "poison" if wanted.poison else "work", "ids": wanted.ids, "number": said.number}
        access.note(visitor, f"dead_letters_{wanted.verb}", what | wanted.chosen.words, wanted.chosen.scenario or None)
    return said


# --- parked work ------------------------------------------------------------------------------------------------------


def _work(house: House, inside: Inside, visitor: Visitor, wanted: Wanted, why: str) -> Said:
    target = State.WAITING if wanted.verb == "retry" else State.DISCARDED
    ledger, by = inside.ledger, visitor.name
    if wanted.everything:
        editable = visitor.editable(scenarios_of(inside, house.seen().now))
        if not editable or (wanted.chosen.scenario and wanted.chosen.scenario not in editable):
            raise access.refuse(_LACKS)
        chosen = wanted.chosen.work(editable)
        if chosen is None:
            raise HTTPException(400, "The filter shows no parked work.")
        _as_shown(wanted, ledger.dead_letter_count(chosen))
        number = ledger.decide_dead_letters(chosen, target, by=by, why=why)
    else:
        found = dict(_parked(inside, wanted.ids))
        _may(house, visitor, set(found.values()))
        number = sum(_decided(inside, work_id, target, by, why) for work_id in found)
    return Said({"retry": "retried", "discard": "discarded"}[wanted.verb] if number else "none", number)


def _parked(inside: Inside, ids: Collection[str]) -> Iterator[tuple[int, str]]:
    """(number, scenario) of those that still are dead letters."""
    for text in ids:
        try:
            row = inside.ledger.dead_letter(_number(text))
        except LedgerError:
            continue  # somebody else was faster
        yield row.id, row.scenario


def _decided(inside: Inside, work_id: int, target: State, by: str, why: str) -> bool:
    try:
        inside.ledger.decide_dead_letter(work_id, target, by=by, why=why)
    except LedgerError:
        return False  # somebody else was faster
    return True


# --- records that are no events ---------------------------------------------------------------------------------------


def _poison(house: House, inside: Inside, visitor: Visitor, wanted: Wanted, why: str) -> Said:
    _may(house, visitor, None)
    if not wanted.chosen.shows_poison:
        raise HTTPException(400, "The filter shows no records that are no events.")
    reason = wanted.chosen.reason
    if wanted.everything:
        _as_shown(wanted, inside.ledger.poison_count(reason))
    if wanted.verb == "discard":
        return _discarded(inside, visitor.name, wanted, reason, why)
    rows = inside.ledger.each_poison(reason) if wanted.everything else _named(inside, wanted.ids)
    with _kafka():
        some = islice(rows, READ_AGAIN)
        each = again_each(inside.ledger, inside.config, some, by=visitor.name, why=why, patience=PATIENCE)
        outcomes = [outcome for _, outcome in each]
    left = sum(outcome not in (Outcome.RECORDED, Outcome.KNOWN) for outcome in outcomes)
    if not outcomes:
        return Said("none")
    return Said("poison-left", left) if left else Said("poison-recorded", len(outcomes))


def _discarded(inside: Inside, by: str, wanted: Wanted, reason: PoisonReason | None, why: str) -> Said:
    if wanted.everything:
        number = inside.ledger.discard_all_poison(reason, by=by, why=why)
    else:
        number = 0
        for row in _named(inside, wanted.ids):
            inside.ledger.discard_poison(row.id, by=by, why=why)
            number += 1
    return Said("poison-discarded" if number else "none", number)


def _named(inside: Inside, ids: Collection[str]) -> Iterator[PoisonRow]:
    for text in ids:
        try:
            yield inside.ledger.poison_one(_number(text.removeprefix("p")))
        except LedgerError:
            continue  # somebody else was faster


@contextmanager
def _kafka() -> Iterator[None]:
    try:
        yield
    except LedgerError:
        raise HTTPException(409, "Somebody else has decided on one of them meanwhile; look again.") from None
    except CareloomError as error:
        raise Unavailable(f"Kafka could not be asked: {type(error).__name__}.", "CareloomBrokerUnavailable") from None


# --- what all of it asks ----------------------------------------------------------------------------------------------

_LACKS = "This needs permission to edit the DAGs that it concerns. Ask who runs this Airflow."


def _may(house: House, visitor: Visitor, scenarios: Collection[str] | None) -> None:
    """Refuse who may not edit these DAGs; None for all of careloom's."""
    asked = scenarios_of(house.inside(), house.seen().now) if scenarios is None else scenarios
    if not visitor.edits_dags() or visitor.editable(asked) != set(asked):
        raise access.refuse(_LACKS)


def _reason(why: str) -> str:
    if not why:
        raise HTTPException(400, "A reason is needed: it stands in the ledger, for whoever finds this later.")
    if len(why) > _LONGEST_WHY:
        raise HTTPException(400, f"The reason is longer than {_LONGEST_WHY} characters.")
    return why


def _as_shown(wanted: Wanted, number: int) -> None:
    """What was shown is what is decided on: nobody discards what came since."""
    if wanted.expected != str(number):
        raise HTTPException(
            409, f"There are {number} now, and not {wanted.expected or 'as many as were shown'}. Look again."
        )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise HTTPException(400, "That is no number of a dead letter.")
    return int(text)
