"""The record of a running stack: who holds the state folder, and what `careloom status` reads about it.

The kernel's lock on `stack.lock` says whether somebody runs; it goes with its holder, kill -9 included. `stack.json`
(0600) is only a description, and one without a lock behind it is stale.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipelines.errors import StackError
from pipelines.stack.probes import Probe
from pipelines.stack.settings import write_private


@dataclass(frozen=True)
class Running:
    """One program as it was last started, at UNIX time `started`."""

    part: str
    pid: int
    restarts: int
    started: float
    log: str
    probe: Probe | None


@dataclass(frozen=True)
class Record:
    """A running stack.

    Attributes:
        stack_id: the mark on its processes.
        supervisor: pid of who started it.
        started: UNIX time.
        config: the `careloom.toml` it runs by.
        programs: by name.
        addresses: label -> what to open.
        chosen: what was chosen and why: "broker", "model", "prometheus".
        ready: whether all its parts have been healthy.
    """

    stack_id: str
    supervisor: int
    started: float
    config: str
    programs: Mapping[str, Running] = field(default_factory=dict)
    addresses: Mapping[str, str] = field(default_factory=dict)
    chosen: Mapping[str, str] = field(default_factory=dict)
    ready: bool = False


def write(state_dir: Path, record: Record) -> None:
    """Replace the record."""
    write_private(state_dir / "stack.json", json.dumps(asdict(record), indent=1) + "\n")


def read(state_dir: Path) -> Record | None:
    """The record, be it of a running stack or stale; None when there is none, or none that this version wrote."""
    try:
        data: dict[str, Any] = json.loads((state_dir / "stack.json").read_text("utf-8"))
        programs = {
            name: Running(**{**one, "probe": _probe(one["probe"])}) for name, one in data.pop("programs").items()
        }
        return Record(programs=programs, **data)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def _probe(data: dict[str, Any] | None) -> Probe | None:
    return None if data is None else Probe(**{**data, "path": tuple(data["path"])})


def held(state_dir: Path) -> bool:
    """Whether a living process runs a stack in this folder."""
    file = state_dir / "stack.lock"
    if not file.exists():
        return False
    with file.open("rb") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Hold:
    """The lock on a state folder, from construction to `release`.

    Raises:
        StackError: another process holds it.
    """

    def __init__(self, state_dir: Path) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(state_dir / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._handle)
            record = read(state_dir)
            who = f"process {record.supervisor}" if record else "another process"
            raise StackError(
                f"{who} runs a stack in {state_dir} already: `careloom status` shows it, Ctrl-C (or SIGTERM) there"
                " stops it, --state DIR starts another beside it"
            ) from None

        self.held = True

    def release(self) -> None:
        """Let go of the folder. May be called twice."""
        if self.held:
            self.held = False
            os.close(self._handle)
