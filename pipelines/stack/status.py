"""What `careloom status` knows: each program's health, the consumer's lag, and the ledger's counts by state."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.config import Config, load
from pipelines.errors import StackError
from pipelines.kafka.lag import lag_of
from pipelines.stack import record
from pipelines.stack.processes import alive


@dataclass(frozen=True)
class Health:
    """One program.

    Attributes:
        problem: why it is not healthy, or None.
        restarts: how often it was started again after a crash.
    """

    part: str
    pid: int
    problem: str | None
    restarts: int
    log: str


@dataclass(frozen=True)
class Status:
    """A running stack, now.

    Attributes:
        state: "up", "starting" or "degraded" (a program does not answer).
        seconds: since it was started.
        lag: records of the topic that the dispatcher has not committed, or None when the broker does not tell.
        work: pieces of work by state, or None when the ledger does not tell.
        unaccounted: records and pieces of work that are nowhere; anything but 0 is a fault.
        down: dependency -> since when it is down, over what, and when it is tried again.
    """

    state: str
    seconds: float
    programs: Mapping[str, Health]
    chosen: Mapping[str, str]
    lag: int | None
    work: Mapping[str, int] | None
    unaccounted: int | None
    addresses: Mapping[str, str]
    config: str
    down: Mapping[str, str] = field(default_factory=dict)


def status(state_dir: Path) -> Status:
    """Ask everything once.

    Raises:
        StackError: no stack runs in this folder; the message says whether one ended without cleaning up.
    """
    running = record.read(state_dir)
    if not record.held(state_dir):
        how = "the last one was killed; `careloom up` clears up after it" if running else "`careloom up` starts one"
        raise StackError(f"no stack runs in {state_dir}: {how}")
    if running is None:
        raise StackError(f"a stack is just being started in {state_dir}: ask again in a moment")
    with ThreadPoolExecutor(max_workers=8) as pool:
        programs = dict(zip(running.programs, pool.map(_health, running.programs.values()), strict=True))
        config = load(Path(running.config))
        tansu = running.chosen.get("broker", "").startswith("tansu")  # it answers "latest" wrongly
        lag = pool.submit(lambda: None if tansu else lag_of(config))
        account = pool.submit(_account, config)
    work, unaccounted, down = account.result()
    healthy = all(one.problem is None for one in programs.values())
    return Status(
        state="starting" if not running.ready else "up" if healthy else "degraded",
        seconds=time.time() - running.started,
        programs=programs,
        chosen=running.chosen,
        lag=lag.result(),
        work=work,
        unaccounted=unaccounted,
        addresses=running.addresses,
        config=running.config,
        down=down,
    )


def _health(program: record.Running) -> Health:
    problem = "not running" if not alive(program.pid) else program.probe.ask(program.started) if program.probe else None
    return Health(program.part, program.pid, problem, program.restarts, program.log)


def _account(config: Config) -> tuple[Mapping[str, int] | None, int | None, Mapping[str, str]]:
    from sqlalchemy.exc import SQLAlchemyError

    from pipelines.ledger import Ledger, engine

    database = engine(config.ledger.url.get_secret_value())
    try:
        ledger = Ledger(database)
        account = ledger.account()
        down = {breaker.dependency: breaker.line for breaker in ledger.breakers() if breaker.opened_at is not None}
    except SQLAlchemyError:
        return None, None, {}
    finally:
        database.dispose()
    return {state.value: count for state, count in account.work.items()}, account.unaccounted, down
