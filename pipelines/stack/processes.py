"""Find and end the processes of one stack, also those that rename themselves or leave their group.

Every program is started with two marks in its environment, which its children inherit whatever they call themselves:
which stack it belongs to and which part. `SPT_NOENV=1` keeps setproctitle (Airflow, vLLM) from writing over them.
Standard library only: the guardian has to start fast.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

STACK_MARK = "CARELOOM_STACK_ID"
PART_MARK = "CARELOOM_STACK_PART"
_PROC = Path("/proc")
_LISTEN = "0A"
#: One place for all stacks of this project.
_BYTECODE = Path(__file__).resolve().parents[2] / ".careloom" / "pycache"


def marks(stack_id: str, part: str) -> dict[str, str]:
    """The environment by which a process of this part is found again."""
    return {STACK_MARK: stack_id, PART_MARK: part, "SPT_NOENV": "1"}


def with_bytecode(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that compiles a module once and not at every start.

    PYTHONDONTWRITEBYTECODE, which images and shells like to set, makes each of Airflow's processes, every task among
    them, compile all that it imports: 45 % of a task's CPU. Where it is set, bytecode goes to a folder of its own
    instead of beside the sources.
    """
    changed = dict(environment)
    if changed.pop("PYTHONDONTWRITEBYTECODE", ""):
        changed.setdefault("PYTHONPYCACHEPREFIX", str(_BYTECODE))
    return changed


def marked(stack_id: str, part: str | None = None) -> list[int]:
    """Living processes of a stack (or of one part of it), oldest pid first; never the caller."""
    wanted = {f"{STACK_MARK}={stack_id}".encode()}
    if part is not None:
        wanted.add(f"{PART_MARK}={part}".encode())
    found = []
    for folder in _PROC.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # ended meanwhile, or another user's
            continue
        if wanted <= set(environment.split(b"\0")):
            found.append(int(folder.name))
    return sorted(found)


def descendants(pid: int) -> list[int]:
    """All children of a process and theirs (PostgreSQL's overwrite their environment, but stay its children)."""
    children: dict[int, list[int]] = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            children.setdefault(_parent(folder), []).append(int(folder.name))
    found: list[int] = []
    queue = [pid]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return sorted(found)


def _parent(folder: Path) -> int:
    try:
        # "pid (name) state ppid ...": the name may hold anything, ")" included
        return int((folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


def alive(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        state = (_PROC / str(pid) / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")


def listening(pids: Iterable[int], port: int | None) -> bool:
    """Whether one of these processes listens on TCP `port` (see proc(5), /proc/net/tcp)."""
    wanted = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = (_PROC / "net" / table).read_text("utf-8").splitlines()[1:]
        except OSError:  # no IPv6
            continue
        for row in map(str.split, rows):
            if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port:
                wanted.add(f"socket:[{row[9]}]")
    return any(wanted & _open_files(pid) for pid in pids)


def _open_files(pid: int) -> set[str]:
    found = set()
    try:
        for handle in (_PROC / str(pid) / "fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(handle.readlink()))
    except OSError:  # ended meanwhile
        return set()
    return found


def send(pids: Iterable[int], what: signal.Signals) -> None:
    """Send a signal to each process that still is there."""
    for pid in pids:
        try:
            os.kill(pid, what)
        except ProcessLookupError:
            continue


def end(stack_id: str, part: str | None = None, *, grace: float = 5.0) -> None:
    """End every process of a stack or part: SIGTERM, after `grace` seconds SIGKILL, until none is left."""
    send(marked(stack_id, part), signal.SIGTERM)
    deadline = time.monotonic() + grace
    while (left := marked(stack_id, part)) and time.monotonic() < deadline:
        time.sleep(0.05)
    while left:
        send(left, signal.SIGKILL)
        time.sleep(0.02)
        left = marked(stack_id, part)
