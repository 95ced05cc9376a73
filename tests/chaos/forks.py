"""careloom's own processes, forked by a warm parent (`zygote.py`), from the side of the harness."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Exit statuses of a task, as the DAG's operators would end.
DONE, BROKEN, ALL_FAILED = 0, 1, 3

_ZYGOTE = Path(__file__).with_name("zygote.py")


@dataclass
class Child:
    """One forked process.

    Attributes:
        role: gateway, dispatcher or carry.
        run: the Airflow run that a task belongs to.
        plan: its fail points, as CARELOOM_FAIL_POINTS has them.
        status: exit status once it ended, a signal as a negative number.
    """

    role: str
    run: str
    plan: str
    on_end: Callable[[Child], None]
    on_stop: Callable[[Child], None]
    pid: int = 0
    status: int | None = None
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.status == -signal.SIGKILL

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended takes none."""
        self.started.wait(30)
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Zygote:
    """The warm parent. Close it.

    Args:
        env: of the parent and all its children, over this process's own.
        logs: folder for a log of each role.
    """

    def __init__(self, env: Mapping[str, str], logs: Path) -> None:
        self._logs = logs
        self._ids = itertools.count(1)
        self._children: dict[int, Child] = {}
        self._lock = threading.Lock()
        with (logs / "zygote.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", str(_ZYGOTE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **env},
                start_new_session=True,  # Ctrl-C is for the harness
            )
        self._reader = threading.Thread(target=self._read, name="zygote", daemon=True)
        self._reader.start()

    def fork(
        self,
        role: str,
        *,
        run: str = "",
        plan: str = "",
        env: Mapping[str, str] | None = None,
        on_end: Callable[[Child], None] = lambda child: None,
        on_stop: Callable[[Child], None] = lambda child: None,
    ) -> Child:
        """Start a process of that role; `on_end` and `on_stop` are called by another thread."""
        child = Child(role, run, plan, on_end, on_stop)
        asked = {
            "role": role,
            "run": run,
            "env": {**(env or {}), "CARELOOM_FAIL_POINTS": plan},
            "log": str(self._logs / f"{role}.log"),
        }
        with self._lock:
            number = next(self._ids)
            self._children[number] = child
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({**asked, "id": number}).encode() + b"\n")
            self._process.stdin.flush()
        return child

    def pids(self) -> dict[str, list[int]]:
        """The processes that live now, by role; the parent's own is `zygote`."""
        found: dict[str, list[int]] = {"zygote": [self._process.pid]}
        with self._lock:
            for child in self._children.values():
                if child.pid:
                    found.setdefault(child.role, []).append(child.pid)
        return found

    def close(self) -> None:
        """End the parent, and with it every child."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(30)
        self._reader.join(30)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._heard(json.loads(line))

    def _heard(self, told: Mapping[str, Any]) -> None:
        with self._lock:
            child = self._children[told["id"]]
            if told["event"] == "ended":
                del self._children[told["id"]]
        child.pid = told["pid"]
        child.started.set()
        if told["event"] == "stopped":
            child.on_stop(child)
        elif told["event"] == "ended":
            child.status = told["status"]
            child.ended.set()
            child.on_end(child)
