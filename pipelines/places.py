"""Where an exception was raised, for messages that must not repeat what it says."""

from __future__ import annotations

import traceback
from pathlib import Path


def place(error: BaseException) -> str:
    """ "file:line" where an exception was raised; its message may hold patient data and stays out."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"
