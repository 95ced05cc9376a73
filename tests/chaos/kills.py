"""kill -9 at every named spot: careloom's own processes end themselves there, as a power cut would end them."""

from __future__ import annotations

import random
import signal
import statistics
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence

from account import Outcome, drain, settle
from flow import Flow
from forks import Child
from house import House
from options import Options

from pipelines.fail_points import NAMES

#: Role -> the spots that it passes. `carry` is the task of a run.
SPOTS = {
    "gateway": tuple(sorted(name for name in NAMES if name.startswith("gateway."))),
    "dispatcher": tuple(sorted(name for name in NAMES if name.startswith("dispatcher."))),
    "carry": tuple(sorted(name for name in NAMES if name.startswith("runner."))),
}

#: Events under way at the same time: enough that every process always has something to die over.
_AT_ONCE = 60
#: Share of a run's tasks that are killed: the others show that what was killed comes through.
_TASKS_KILLED = 0.6


class Killer:
    """Plans which process dies where, until every spot was deadly so many times.

    Args:
        house: whose processes.
        each: kills at each spot.
        seed: of the choices.
    """

    def __init__(self, house: House, each: int, seed: int) -> None:
        self._house = house
        self._each = each
        self._chance = random.Random(seed)
        self._lock = threading.Lock()
        self.fired: Counter[str] = Counter()
        self.ends: list[tuple[str, float]] = []
        self._over = False

    @property
    def left(self) -> int:
        """Kills still to come."""
        return sum(max(0, self._each - self.fired[spot]) for spots in SPOTS.values() for spot in spots)

    def plan(self, role: str) -> str:
        """Where the next process of that role dies; "" for nowhere."""
        with self._lock:
            wanting = [spot for spot in SPOTS.get(role, ()) if self.fired[spot] < self._each]
            spared = role == "carry" and self._chance.random() > _TASKS_KILLED
            if self._over or not wanting or spared:
                return ""
            fewest = min(self.fired[spot] for spot in wanting)
            spot = self._chance.choice([spot for spot in wanting if self.fired[spot] == fewest])
            # a gateway that died over every request would leave the others nothing to die over
            passings = (1, 2, 4, 8) if role == "gateway" else (1, 1, 1, 2)
            return f"{spot}@{self._chance.choice(passings)}"

    def ended(self, child: Child) -> None:
        """A process ended; by a kill of ours it counts."""
        if child.status == -signal.SIGKILL and child.plan:
            with self._lock:
                self.fired[child.plan.partition("@")[0]] += 1
                self.ends.append((child.role, time.monotonic()))

    def stop(self) -> None:
        """Plan no more, and take the plans from those that live."""
        self._over = True
        self._house.kill("gateway")
        for number in range(2):
            self._house.kill("dispatcher", number)

    def tell(self, flow: Flow, began: float) -> None:
        """A running account: it is what there is, should this run be broken off hard."""
        minutes = (time.monotonic() - began) / 60
        done, account = sum(self.fired.values()), self._house.ledger.account()
        spots = [spot for names in SPOTS.values() for spot in names if self.fired[spot] < self._each]
        states = ", ".join(f"{state} {count}" for state, count in sorted(account.work.items()) if count)
        self._house.say(
            f"  {done} kills ({done / minutes:.0f} a minute), {self.left} to come at {len(spots)} spots;"
            f" {len(flow.cases)} events sent: {states}; unaccounted {account.unaccounted}"
        )

    def notes(self, recoveries: Mapping[str, Sequence[float]]) -> list[str]:
        """How often each spot was deadly, and how fast each role was at work again."""
        fired = ", ".join(f"{spot} {self.fired[spot]}" for spots in SPOTS.values() for spot in spots)
        again = ", ".join(
            f"{role} p50 {statistics.median(seconds):.1f} max {max(seconds):.1f}"
            for role, seconds in recoveries.items()
            if seconds
        )
        short = [f"stopped with {self.left} kills to come: they were not done"] if self.left else []
        return [f"fired: {fired}", f"at work again, s: {again}", *short]


def kill_everywhere(house: House, options: Options) -> Outcome:
    """Kill at all spots, each so many times, under a steady stream of events with some poison in it.

    Two dispatchers share the work, so that one goes on while the other comes back. Whatever ends it (all kills done,
    the limit, a signal), everything drains and every event is accounted for.

    Args:
        house: with one dispatcher.
        options: how many kills, and when to end.
    """
    outcome = Outcome("kill -9 at every fail point")
    began = time.monotonic()
    killer = Killer(house, options.kills, options.seed)
    poison_before = house.ledger.account().poison
    house.plan, house.ended = killer.plan, killer.ended
    for role in ("gateway", "dispatcher"):
        house.kill(role)
    house.bring("dispatcher", 1)
    flow = Flow(house, at_once=_AT_ONCE, seed=options.seed)
    poisoned = 0
    try:
        poisoned = _until_done(house, options, killer, flow, began)
    finally:
        flow.stop()
        killer.stop()
        house.plan, house.ended = lambda role: "", lambda child: None
    house.take_away("dispatcher", 1)
    drain(house, flow.cases, outcome, since=time.monotonic(), patience=240)
    outcome.injections = sum(killer.fired.values())
    outcome.short = killer.left
    outcome.progress = [seconds for each in _recoveries(house, killer).values() for seconds in each]
    outcome.notes += killer.notes(_recoveries(house, killer))
    settle(house, flow.cases, outcome)
    outcome.expect("poison counted", house.ledger.account().poison - poison_before, poisoned)
    outcome.seconds = time.monotonic() - began
    return outcome


def _until_done(house: House, options: Options, killer: Killer, flow: Flow, began: float) -> int:
    """Let them die until there were enough, with an account on the way; returns how many records were poison."""
    poisoned, told = 0, time.monotonic()
    while killer.left and options.goes_on(began):
        options.pause(0.1)
        if killer.fired["dispatcher.dead_lettered"] < options.kills and poisoned * 8 < len(flow.cases):
            poisoned += 1
            house.poison([(None, b"not an event", [])])
        if time.monotonic() - told > 15:
            told = time.monotonic()
            killer.tell(flow, began)
    return poisoned


def _recoveries(house: House, killer: Killer) -> dict[str, list[float]]:
    """By role, from each kill to the next thing that its role did: a 2xx, a run asked for, a draft written."""
    done = {
        "gateway": sorted(house.sender.acknowledgements),
        "dispatcher": sorted(house.airflow.posted),
        "carry": [commit.at for commit in house.hospital.commits],
    }
    found: dict[str, list[float]] = {role: [] for role in done}
    for role, at in killer.ends:
        place = bisect_right(done[role], at)
        if place < len(done[role]):
            found[role].append(done[role][place] - at)
    return found
