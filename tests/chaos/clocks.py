"""Wall clocks ten minutes off, each process's another way; the stamps that each of them leaves show that it was so."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from account import Outcome
from house import House
from options import Options
from sqlalchemy import text
from trial import Trial, trial

_SOURCE = Path(__file__).with_name("clock_off.c")
#: Seconds that a clock is off, and how far a stamp may be from that: it is made some time after the broker's.
_OFF, _TOLERANCE = 600, 200

# The broker's clock is right. A worker stamps a model's answer: what needs none or is stale has no such stamp.
_STAMPS = text(
    """
    SELECT extract(epoch FROM e.received_at - e.durable_at)::float AS gateway,
        extract(epoch FROM e.matched_at - e.durable_at)::float AS dispatcher,
        extract(epoch FROM w.guarded_at - e.durable_at)::float AS worker
    FROM events e LEFT JOIN work w USING (event_id) WHERE e.event_id = ANY(CAST(:ids AS text[]))
    """
)


def clock(options: Options, say: Callable[[str], None]) -> Iterator[Outcome]:
    """The wall clocks of gateway and workers are ten minutes ahead, the dispatcher's ten behind, and the reverse."""
    compiler = shutil.which("cc")
    if compiler is None:
        yield Outcome("clocks 10 minutes off", skipped="no C compiler to build clock_off.c with (apt-get install gcc)")
        return
    with House(say=say) as house:
        library = house.state / "clock_off.so"
        build = (compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl")
        subprocess.run(build, check=True)
        ahead, behind = (
            house.another_zygote({"LD_PRELOAD": str(library), "CLOCK_OFF": str(seconds)}) for seconds in (_OFF, -_OFF)
        )
        wrong = (
            ("clocks: gateway +10 min, dispatcher -10, workers +10", ahead, behind, 1),
            ("clocks: gateway -10 min, dispatcher +10, workers -10", behind, ahead, -1),
        )
        for name, one, other, sign in wrong[: 1 if options.quick else 2]:
            house.gateway_zygote, house.dispatcher_zygote, house.airflow.zygote = one, other, one
            house.kill("gateway")
            house.kill("dispatcher")
            with trial(house, options, name) as told:
                told.ended(3)
                _versions_in_disorder(told, 2 if options.quick else 12, options.seed)
                time.sleep(options.fault)
            _off(told, {"gateway": sign * _OFF, "dispatcher": -sign * _OFF, "worker": sign * _OFF})
            yield told.outcome


def _versions_in_disorder(told: Trial, patients: int, seed: int) -> None:
    """Four versions of an Encounter of each patient, in any order."""
    chance = random.Random(seed)
    cases = [case for _ in range(patients) for case in told.house.cases.versions(4)]
    chance.shuffle(cases)
    told.cases += cases
    told.house.sender.send(cases, side_by_side=2)


def _off(told: Trial, wanted: dict[str, int]) -> None:
    """Hold every stamp against the broker's: by role, how far off its clock was."""
    with told.house.engine.connect() as connection:
        rows = connection.execute(_STAMPS, {"ids": [case.event_id for case in told.cases]}).mappings().all()
    for role, seconds in wanted.items():
        stamps = [row[role] for row in rows if row[role] is not None]
        right = sum(abs(stamp - seconds) > _TOLERANCE for stamp in stamps)
        told.outcome.expect(f"stamps of the {role} not {seconds:+} s off", right, 0)
        told.outcome.expect(f"whether the {role} left stamps", int(bool(stamps)), 1)
        if stamps:
            told.outcome.notes.append(f"{role}: {len(stamps)} stamps {min(stamps):+.0f} to {max(stamps):+.0f} s off")
