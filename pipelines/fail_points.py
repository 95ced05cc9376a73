"""Named spots at which the chaos tests end a process: nothing happens at them unless the environment asks for it.

CARELOOM_FAIL_POINTS holds `name[@N][=action]` separated by commas: at the N-th passing (1 by default) of that spot in
this process, `kill` (the default) ends it by SIGKILL, as a power cut would; `stop` stops it by SIGSTOP, as a paused
host would. An unknown name or action is an error at start, so that no chaos run tests nothing.
"""

from __future__ import annotations

import os
import signal
from collections import Counter

from pipelines.errors import ConfigError

VARIABLE = "CARELOOM_FAIL_POINTS"

#: Every spot there is; the word before the dot is the process that passes it.
NAMES = frozenset(
    {
        "gateway.accepted",  # an event was read and checked, and is not yet sent to Kafka
        "gateway.produced",  # Kafka has it, and the sender has no answer yet
        "dispatcher.consumed",  # records were read, and are not yet in the ledger
        "dispatcher.dead_lettered",  # poison is copied to the dead-letter topic, and the ledger does not know
        "dispatcher.recorded",  # they are in the ledger, and the offset is not committed
        "dispatcher.committed",  # the offset is committed
        "dispatcher.decided",  # a run stands in the ledger, and Airflow was not asked
        "dispatcher.posted",  # Airflow has the run, and the ledger does not know
        "dispatcher.noted",  # the ledger knows
        "runner.claimed",  # rows are leased, and nothing is done to them
        "runner.taking",  # a run that stays is about to take further rows
        "runner.took",  # it has taken them: they are leased, and nothing is done to them
        "runner.asked",  # the model has answered, and the ledger has no drafts
        "runner.inferred",  # drafts lie in the outbox
        "runner.flagged",  # red flags are at the FHIR server, and the ledger does not know
        "runner.sending",  # drafts are about to go to the FHIR server
        "runner.leaving",  # a transaction is confirmed and marked, and not a byte of it has left
        "runner.sent",  # drafts are there, and the ledger does not know
        "runner.written",  # the ledger knows
    }
)
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def _read(wanted: str) -> dict[str, tuple[int, signal.Signals]]:
    """Name -> (which passing, signal)."""
    plan: dict[str, tuple[int, signal.Signals]] = {}
    for part in filter(None, (part.strip() for part in wanted.split(","))):
        spot, _, action = part.partition("=")
        name, _, passing = spot.partition("@")
        if name not in NAMES or action not in ("", *_SIGNALS) or not (passing or "1").isdecimal():
            raise ConfigError(f"{VARIABLE}: {part!r} is no fail point; known: {', '.join(sorted(NAMES))}")
        plan[name] = (int(passing or 1), _SIGNALS[action or "kill"])
    return plan


_PLAN = _read(os.environ.get(VARIABLE, ""))
_passed: Counter[str] = Counter()


def fail_point(name: str) -> None:
    """End or stop this process here if a chaos test asked for it."""
    if not _PLAN or name not in _PLAN:
        return
    _passed[name] += 1
    passing, number = _PLAN[name]
    if _passed[name] == passing:
        os.kill(os.getpid(), number)
