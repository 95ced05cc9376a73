"""kill -9 at every named spot: careloom's own processes end themselves there, as a power cut would end them."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter

from account import Outcome, drain, settle
from flow import Flow
from forks import Child
from house import House

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
        self._house.kill("dispatcher")


def kill_everywhere(house: House, each: int, *, seed: int = 4, patience: float = 3000.0) -> Outcome:
    """Kill at all spots, each so many times, under a steady stream of events with some poison in it.

    Args:
        house: with one dispatcher.
        each: kills at each spot.
        seed: of the choices.
        patience: seconds after which it stops killing, whatever is left.
    """
    outcome = Outcome("kill -9 at every fail point")
    began = time.monotonic()
    killer = Killer(house, each, seed)
    poison_before = house.ledger.account().poison
    house.plan, house.ended = killer.plan, killer.ended
    house.kill("gateway")
    house.kill("dispatcher")
    flow = Flow(house, at_once=_AT_ONCE, seed=seed)
    poisoned, told = 0, time.monotonic()
    try:
        while killer.left and time.monotonic() - began < patience:
            time.sleep(0.1)
            if killer.fired["dispatcher.dead_lettered"] < each and poisoned * 8 < len(flow.cases):
                poisoned += 1
                house.poison([(None, b"not an event", [])])
            if time.monotonic() - told > 15:
                told = time.monotonic()
                house.say(f"  {sum(killer.fired.values())} kills, {killer.left} to come, {len(flow.cases)} events")
    finally:
        flow.stop()
        killer.stop()
        house.plan, house.ended = lambda role: "", lambda child: None
    drain(house, flow.cases, outcome, since=time.monotonic(), patience=240)
    outcome.injections = sum(killer.fired.values())
    outcome.progress = _recoveries(house, killer)
    fired = ", ".join(f"{spot} {killer.fired[spot]}" for spots in SPOTS.values() for spot in spots)
    outcome.notes.append(f"fired: {fired}")
    settle(house, flow.cases, outcome)
    outcome.expect("poison counted", house.ledger.account().poison - poison_before, poisoned)
    outcome.seconds = time.monotonic() - began
    return outcome


def _recoveries(house: House, killer: Killer) -> list[float]:
    """From each kill to the next thing that its role did: a 2xx, a run asked for, a draft written."""
    done = {
        "gateway": sorted(house.sender.acknowledgements),
        "dispatcher": sorted(house.airflow.posted),
        "carry": [commit.at for commit in house.hospital.commits],
    }
    found = []
    for role, at in killer.ends:
        following = next((moment for moment in done[role] if moment > at), None)
        if following is not None:
            found.append(following - at)
    return found
