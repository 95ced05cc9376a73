"""The ledger and the scenarios as the page sees them: had at the first request, and kept.

What was read serves everybody for a moment, so that twenty open pages cost the ledger what one does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from pipelines.config import Config, load
from pipelines.errors import ConfigError
from pipelines.ledger import Ledger
from pipelines.ledger.database import impatient_engine
from pipelines.ledger.overview import Overview, Surroundings, Timeliness, overview, timeliness
from pipelines.models.admission import Room
from pipelines.surroundings import surroundings
from plugins import manager
from plugins.manager import Loaded

#: Seconds that what is not finished, and the shares of an hour and a day, serve further requests.
KEEP, KEEP_HOUR, KEEP_DAY = 1.0, 10.0, 60.0
#: Seconds that a ledger which has not answered is not asked again: requests share a few threads with all of Airflow's.
KEEP_FAILURE = 2.0
HOUR, DAY = 3600.0, 86_400.0

_T = TypeVar("_T")


class Unavailable(Exception):
    """The page cannot show or do anything now; the message says why, and what to do.

    Attributes:
        runbook: of what is wrong; "" where there is none.
    """

    def __init__(self, message: str, runbook: str = "") -> None:
        super().__init__(message)
        self.runbook = runbook


@dataclass(frozen=True, slots=True)
class Inside:
    """What is had once."""

    config: Config
    loaded: Loaded
    engine: Engine
    ledger: Ledger
    room: Room


@dataclass(frozen=True, slots=True)
class Seen:
    """What a page is made of.

    Attributes:
        hour, day: scenario -> what became of the events of the last hour, and of the last day.
    """

    now: Overview
    hour: Mapping[str, Timeliness]
    day: Mapping[str, Timeliness]


@dataclass(slots=True)
class _Kept:
    """Things by name, each for its time."""

    things: dict[str, tuple[float, object]] = field(default_factory=dict)

    def get(self, name: str, seconds: float, make: Callable[[], _T]) -> _T:
        at, thing = self.things.get(name, (float("-inf"), None))
        if time.monotonic() - at >= seconds:
            thing = make()
            self.things[name] = (time.monotonic(), thing)
        return thing  # type: ignore[return-value]  # what is kept under a name was made for it


class House:
    """One for each process that serves the page.

    Args:
        dags: asks Airflow which of these DAGs can run, and whether each is paused.
        configuration: reads the configuration.
    """

    def __init__(
        self, dags: Callable[[Collection[str]], Mapping[str, bool]], configuration: Callable[[], Config] = load
    ) -> None:
        self._dags = dags
        self._configuration = configuration
        self._lock = Lock()
        self._inside: Inside | None = None
        self._kept = _Kept()
        self._failed: tuple[float, Unavailable] | None = None

    def inside(self) -> Inside:
        """The configuration and what it names.

        Raises:
            Unavailable: there is none, or it is wrong.
        """
        with self._lock:
            if self._inside is None:
                self._inside = self._enter()
            return self._inside

    def _enter(self) -> Inside:
        try:
            config = self._configuration()
        except ConfigError as error:
            raise Unavailable(
                f"careloom's configuration cannot be read by Airflow's API server: {error} Name the file in"
                " CARELOOM_CONFIG in the API server's environment, and start it again."
            ) from None
        engine = impatient_engine(config.ledger.url.get_secret_value())
        loaded = manager.load(config.plugins.enabled, config.plugins.disabled_scenarios)
        deadlines = {scenario.id: scenario.deadline.total_seconds() for scenario in loaded.scenarios.values()}
        return Inside(config, loaded, engine, Ledger(engine), Room(config.registry, deadlines))

    def seen(self) -> Seen:
        """All that the page shows, at most a moment old.

        Raises:
            Unavailable: the ledger does not answer, or there is no configuration.
        """
        inside = self.inside()
        paused = self._dags(tuple(inside.loaded.scenarios))
        around = surroundings(inside.config, inside.loaded, paused, inside.room)
        with self._lock:
            if self._failed and time.monotonic() - self._failed[0] < KEEP_FAILURE:
                raise self._failed[1]
            try:
                return self._read(inside.engine, around)
            except Unavailable as error:
                self._failed = (time.monotonic(), error)
                raise

    def _read(self, engine: Engine, around: Surroundings) -> Seen:
        with asking():
            return Seen(
                now=self._kept.get("now", KEEP, lambda: overview(engine, around)),
                hour=self._kept.get("hour", KEEP_HOUR, lambda: timeliness(engine, around.promises, HOUR)),
                day=self._kept.get("day", KEEP_DAY, lambda: timeliness(engine, around.promises, DAY)),
            )

    def changed(self) -> None:
        """Somebody has decided something: what was read before is old."""
        with self._lock:
            self._kept.things.pop("now", None)


@contextmanager
def asking() -> Iterator[None]:
    """While the ledger is asked.

    Raises:
        Unavailable: it does not answer.
    """
    try:
        yield
    except SQLAlchemyError as error:
        raise Unavailable(
            f"The ledger does not answer ({type(error).__name__}). Nothing is lost: events wait in Kafka, runs in"
            " Airflow end and are taken up again. See to its PostgreSQL; `careloom status` says what else is down.",
            "CareloomLedgerDown",
        ) from None
