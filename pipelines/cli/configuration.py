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
