"""careloom's own: the ledger's database and schema, and the processes gateway, dispatcher and exporter."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipelines.config import ENVIRONMENT_VARIABLE
from pipelines.stack.postgres import make_database
from pipelines.stack.probes import Probe
from pipelines.stack.settings import Kept
from pipelines.stack.supervisor import Program


class Ledger:
    """The ledger's database."""

    name = "ledger"
    needs = ("postgres",)

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def prepare(self) -> None:
        """Make the database and bring it to the newest schema; does nothing when it is there."""
        from pipelines.ledger import migrate

        make_database(self._kept, "careloom")
        migrate(self._kept.database("careloom", "psycopg"))

    def programs(self) -> Sequence[Program]:
        """None of its own."""
        return ()

    def addresses(self) -> Mapping[str, str]:
        """None of its own."""
        return {}


class Own:
    """One of careloom's long-lived processes: `python -m MODULE`, configured by CARELOOM_CONFIG alone."""

    def __init__(self, name: str, module: str, health: str, kept: Kept, config: Path, needs: tuple[str, ...]) -> None:
        self.name = name
        self.needs = needs
        self._module = module
        self._health = kept.url(name, health)
        self._config = config
        self._kept = kept

    def prepare(self) -> None:
        """Nothing: the ledger and the topic are there."""

    def programs(self) -> Sequence[Program]:
        """The one process; SIGTERM lets it finish what it holds."""
        return (
            Program(
                name=self.name,
                argv=(sys.executable, "-m", self._module),
                env={ENVIRONMENT_VARIABLE: str(self._config)},
                probe=Probe("http", self._health),
                cwd=self._kept.state_dir,
            ),
        )

    def addresses(self) -> Mapping[str, str]:
        """Where it listens."""
        return {self.name.capitalize(): self._health}


def own_parts(kept: Kept, config: Path, *, outside: tuple[str, ...]) -> tuple[Own, ...]:
    """Gateway, dispatcher and exporter; `outside`: the broker and hospitals that we start ourselves, by part."""
    gateway = Own("gateway", "pipelines.gateway", "/health", kept, config, ("ledger", *outside))
    dispatcher = Own("dispatcher", "pipelines.dispatcher", "/metrics", kept, config, ("ledger", "airflow", *outside))
    exporter = Own("exporter", "monitoring.exporter", "/metrics", kept, config, ("ledger",))
    return gateway, dispatcher, exporter
