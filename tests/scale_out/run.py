"""Scale-out, shown on one machine: `make scale-out`, or `python -m tests.scale_out.run [--events N] [--json FILE]`.

Some hundred events of many patients go through PostgreSQL, Apache Kafka with six partitions, two dispatchers, and
Airflow with CeleryExecutor, Redis and two workers. In the middle one worker and then one dispatcher is killed -9, with
all of their processes. In the end nothing may be lost, doubled or unaccounted for, and everyone must have had a share.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.house import appointments
from tests.scale_out.house import DISPATCHERS, WORKERS, House, facts

#: Events at a time, and seconds between: slowly enough for the faults to fall in the middle.
WAVE, PAUSE = 10, 1.0
#: Seconds until everything has to be done with, once all is sent.
PATIENCE = 300.0

_BEGAN = time.monotonic()


@dataclass
class Report:
    """What came of it.

    Attributes:
        ran: what was started.
        events: sent, and taken by the gateway.
        lost: without a draft at the hospital.
        doubled: with a draft of one type more than once.
        unaccounted: by the ledger's own sum.
        drained: whether the ledger had nothing left to do in time.
        states: pieces of work by state, in the end.
        tasks: finished tasks by worker.
        dispatchers: dispatcher -> records consumed, runs made, events in them; over its lives.
        killed: program -> processes that were killed -9.
        seconds: from the first event to the last draft.
    """

    ran: Mapping[str, Any]
    events: int
    lost: int
    doubled: int
    unaccounted: int
    drained: bool
    states: Mapping[str, int]
    tasks: Mapping[str, int]
    dispatchers: Mapping[str, Mapping[str, float]]
    killed: Mapping[str, int]
    seconds: float
    failures: list[str] = field(default_factory=list)

    def judge(self) -> None:
        """Fill in what does not hold."""
        must_be_none = {"lost": self.lost, "doubled": self.doubled, "unaccounted": self.unaccounted}
        self.failures += [f"{number} {what}" for what, number in must_be_none.items() if number]
        if not self.drained:
            self.failures.append(f"not drained: {dict(self.states)}")
        self.failures += [f"{name} ran no task" for name in WORKERS if not self.tasks.get(name)]
        self.failures += [f"{name} consumed no record" for name in DISPATCHERS if not self.dispatchers[name]["records"]]
        self.failures += [f"{name} made no run" for name in DISPATCHERS if not self.dispatchers[name]["runs"]]


def say(text: str) -> None:
    """A line of progress."""
    print(f"[{time.monotonic() - _BEGAN:5.0f} s] {text}", flush=True)


def show(house: House, events: int) -> Report:
    """Send, kill in the middle, drain, and take the account."""
    warm = appointments("warm", 4)
    house.send(warm)
    if not house.drain("warm", len(warm), PATIENCE):
        raise TimeoutError(f"the first {len(warm)} events are not done after {PATIENCE:.0f} s")
    say("the first events are through; the others follow")
    bodies = appointments("event", events)
    waves = [list(bodies)[at : at + WAVE] for at in range(0, events, WAVE)]
    faults = {len(waves) // 3: WORKERS[0], 2 * len(waves) // 3: DISPATCHERS[0]}
    killed: dict[str, int] = {}
    lives: dict[str, list[Mapping[str, float]]] = {name: [] for name in DISPATCHERS}
    began = time.monotonic()
    for number, wave in enumerate(waves):
        house.send({name: bodies[name] for name in wave})
        victim = faults.get(number)
        if victim:
            if victim in lives:
                lives[victim].append(house.dispatcher_figures(victim))
            killed[victim] = house.kill(victim)
            say(f"killed -9: {victim}, {killed[victim]} processes, after {(number + 1) * WAVE} events")
        time.sleep(PAUSE)
    say(f"all {events} are sent: {dict(house.states('event'))}")
    drained = house.drain("event", events, PATIENCE)
    seconds = time.monotonic() - began
    for name, of_lives in lives.items():
        of_lives.append(house.dispatcher_figures(name))
    created = {event: drafts for event, drafts in house.written().items() if event.startswith("Appointment/event-")}
    return Report(
        ran=facts(house),
        events=events,
        lost=sum(not created.get(f"Appointment/{name}") for name in bodies),
        doubled=sum(number > 1 for drafts in created.values() for number in drafts.values()),
        unaccounted=house.unaccounted(),
        drained=drained,
        states=dict(house.states("event")),
        tasks=dict(house.tasks_by_worker()),
        dispatchers={name: _sum(of_lives) for name, of_lives in lives.items()},
        killed=killed,
        seconds=round(seconds, 1),
    )


def _sum(lives: list[Mapping[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for one in lives:
        total.update(one)
    return dict(total)


def table(report: Report) -> str:
    """For people."""
    rows = [(name, str(value)) for name, value in report.ran.items()]
    rows += [
        ("events", str(report.events)),
        ("lost", str(report.lost)),
        ("doubled", str(report.doubled)),
        ("unaccounted", str(report.unaccounted)),
        ("first event to last draft", f"{report.seconds} s"),
    ]
    rows += [(f"killed -9: {name}", f"{number} processes") for name, number in report.killed.items()]
    rows += [(f"tasks run by {name}", str(number)) for name, number in sorted(report.tasks.items())]
    for name, figures in report.dispatchers.items():
        rows.append((name, ", ".join(f"{figures[what]:.0f} {what}" for what in ("records", "runs", "events"))))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def main() -> int:
    """The command; 0 when everything held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=300, help="how many (default %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the JSON into this file")
    arguments = parser.parse_args()
    with House(say) as house:
        report = show(house, arguments.events)
    report.judge()
    said = json.dumps(asdict(report))
    if arguments.json:
        arguments.json.write_text(said + "\n", encoding="utf-8")
    print(table(report))
    for failure in report.failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    print(said)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
