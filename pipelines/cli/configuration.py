"""Which configuration a command means: the one it is told, else the one of the stack that runs here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.cli.up import STATE

if TYPE_CHECKING:
    from pipelines.config import Config


def configuration(explicit: Path | None, state: Path = STATE) -> Config:
    """`--config`, else `CARELOOM_CONFIG`, else `careloom.toml` here, else that of the stack in `state`.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    from pipelines.config import DEFAULT_FILE, ENVIRONMENT_VARIABLE, load

    of_stack = state / DEFAULT_FILE
    named = explicit is not None or ENVIRONMENT_VARIABLE in os.environ or Path(DEFAULT_FILE).exists()
    return load(explicit if named or not of_stack.exists() else of_stack)


def configuration_if_any(explicit: Path | None = None, state: Path = STATE) -> Config | None:
    """`configuration`, or None where nobody named one and there is none here.

    Raises:
        ConfigError: the one that there is, is wrong.
    """
    from pipelines.config import DEFAULT_FILE, ENVIRONMENT_VARIABLE

    named = explicit is not None or ENVIRONMENT_VARIABLE in os.environ
    there = Path(DEFAULT_FILE).exists() or (state / DEFAULT_FILE).exists()
    return configuration(explicit, state) if named or there else None
