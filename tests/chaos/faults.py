"""All faults, by the names that the command line takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import answers
import clocks
import disk
import load
import outages
import real
import standing
import traffic
from account import Outcome
from house import House
from kills import kill_everywhere
from options import Options

Say = Callable[[str], None]


@dataclass(frozen=True)
class Fault:
    """One fault, or a family of them.

    Attributes:
        name: on the command line.
        what: in one line.
        in_house: does it to a house that others use too.
        alone: does it to a house of its own.
        short: whether `--quick` does it where none is named; CI names its own (`test_chaos_short.py`).
    """

    name: str
    what: str
    in_house: Callable[[House, Options], Iterator[Outcome]] | None = None
    alone: Callable[[Options, Say], Iterator[Outcome]] | None = None
    short: bool = True


def _kills(house: House, options: Options) -> Iterator[Outcome]:
    yield kill_everywhere(house, options)


FAULTS = (
    Fault("kills", "kill -9 at every fail point", _kills),
    Fault("thrice", "each event sent three times", traffic.thrice),
    Fault("reorder", "versions of a resource out of order", traffic.reordered),
    Fault("poison", "1 % poison on the topic", traffic.poison),
    Fault("model", "a model server that answers badly", answers.model_faults),
    Fault("refusals", "a FHIR server that refuses for now, or loses its answers", answers.fhir_passing),
    Fault("fhir", "a FHIR server that is away, or refuses for good", answers.fhir_faults),
    Fault("dispatchers", "two dispatchers, killed and paused", outages.two_dispatchers),
    Fault("paused", "workers thought dead that come back", outages.paused_workers),
    Fault("late", "a FHIR server that commits late, its worker lost", outages.late_commits),
    Fault("airflow", "Airflow's API away", outages.airflow_away),
    Fault("ledger", "the ledger killed -9", outages.ledger),
    Fault("broker", "the broker killed -9", outages.broker),
    Fault("clock", "clocks ten minutes off", alone=clocks.clock),
    Fault("standing", "runs that stand killed -9", alone=standing.standing_runs, short=False),
    Fault("disk", "a full disk", alone=disk.full_disk),
    Fault("brokers", "each of three brokers killed -9 in turn", alone=outages.each_broker, short=False),
    Fault("load", "ten times the normal load", alone=load.tenfold, short=False),
    Fault("real", "Airflow itself and HAPI FHIR itself", alone=real.real_engines, short=False),
)
