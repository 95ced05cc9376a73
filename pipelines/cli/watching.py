"""What `careloom top` shows, gathered again and again: the ledger each time, what costs more only every few seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from pipelines.config import Config
from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.errors import AirflowError, LedgerError
from pipelines.kafka.lag import lag_of
from pipelines.ledger.database import impatient_engine
from pipelines.ledger.overview import Overview, Pace, Timeliness, overview, pace, timeliness
from pipelines.models.admission import Room
from pipelines.surroundings import surroundings
from plugins.manager import Loaded

#: Seconds that objectives and the pace look back, and that what they say serves.
WINDOW, KEEP = 3600.0, 5.0
#: Seconds between questions to Kafka.
LAG_EVERY = 10.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Sight:
    """One look.

    Attributes:
        timeliness, pace: of the last hour, by scenario.
        lag: records not yet taken from Kafka; None where that is not known (yet).
        airflow: why Airflow could not be asked; "" where it was.
    """

    now: Overview
    timeliness: Mapping[str, Timeliness]
    pace: Mapping[str, Pace]
    lag: int | None
    airflow: str


class Watch:
    """Looks.

    Args:
        config: where everything is.
        loaded: the installed scenarios.
        lag: asks Kafka, in a thread of its own.
    """

    def __init__(self, config: Config, loaded: Loaded, lag: Callable[[Config], int | None] = lag_of) -> None:
        self._config = config
        self._loaded = loaded
        self._engine: Engine = impatient_engine(config.ledger.url.get_secret_value())
        self._airflow = AirflowApi(config.airflow, timeout=2.0)
        self._room = Room(config.registry, {s.id: s.deadline.total_seconds() for s in loaded.scenarios.values()})
        self._ask_lag = lag
        # a daemon: kafka-python takes half a minute to find a broker away, and nobody who leaves waits for that
        self._asking: threading.Thread | None = None
        self._lag: int | None = None
        self._lag_at = float("-inf")
        self._kept: tuple[float, Mapping[str, Timeliness], Mapping[str, Pace]] | None = None

    def look(self) -> Sight:
        """Look once.

        Raises:
            LedgerError: the ledger does not answer.
        """
        paused, trouble = self._dags()
        around = surroundings(self._config, self._loaded, paused, self._room)
        try:
            now = overview(self._engine, around)
            if self._kept is None or time.monotonic() - self._kept[0] > KEEP:
                met = timeliness(self._engine, around.promises, WINDOW)
                self._kept = time.monotonic(), met, pace(self._engine, WINDOW)
        except SQLAlchemyError as error:
            raise LedgerError(f"the ledger does not answer ({type(error).__name__}); see ledger.url") from None
        return Sight(now, self._kept[1], self._kept[2], self._lagging(), trouble)

    def close(self) -> None:
        """Give everything back."""
        self._airflow.close()
        self._engine.dispose()

    def settled(self, seconds: float) -> None:
        """Wait for Kafka's answer, for so long at most: a single look has no later one to show it."""
        self._lagging()
        if self._asking is not None:
            self._asking.join(seconds)

    def _dags(self) -> tuple[Mapping[str, bool] | None, str]:
        try:
            return self._airflow.dags(leniently=True), ""
        except AirflowError as error:
            return None, str(error)

    def _lagging(self) -> int | None:
        going = self._asking is not None and self._asking.is_alive()
        if not going and time.monotonic() - self._lag_at > LAG_EVERY:
            self._lag_at = time.monotonic()
            self._asking = threading.Thread(target=self._ask, name="lag", daemon=True)
            self._asking.start()
        return self._lag

    def _ask(self) -> None:
        try:
            self._lag = self._ask_lag(self._config)
        except Exception:  # noqa: BLE001  whatever the client trips over, the lag is not known
            self._lag = None
