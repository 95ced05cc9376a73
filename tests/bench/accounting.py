"""CPU seconds and memory of trees of processes, from /proc (proc(5)), those of children that have ended included.

A process that has ended is in `cutime` and `cstime` of the parent that waited for it. The sum of own and children's
time over the living processes of a tree therefore holds all that the tree ever used, and its difference between two
readings is exact however many processes came and went in between: the same seconds only move from the child's line
to its parent's. Sampling would miss a task that lives for a second. What it cannot see is a child that nobody waited
for (its parent ignores SIGCHLD, or ended first); `Meter.restarted` tells of the second.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of /proc/PID/stat.

    Attributes:
        parent: its pid.
        own: CPU seconds of its threads, user and system.
        ended: CPU seconds of children that it has waited for, and of theirs.
    """

    parent: int
    own: float
    ended: float


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds of a tree, by how far below its root.

    Attributes:
        root: the first process itself.
        children: its living children themselves.
        below: everything further down, and every process that has ended.
    """

    root: float = 0.0
    children: float = 0.0
    below: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.root + self.children + self.below

    def __sub__(self, before: Spent) -> Spent:
        return Spent(self.root - before.root, self.children - before.children, self.below - before.below)


def look() -> dict[int, Seen]:
    """Every process that lives now."""
    found = {}
    for folder in _PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            # "pid (name) state ppid ...": the name may hold anything, ")" included
            fields = (folder / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        user, system, ended_user, ended_system = (int(field) / _TICK for field in fields[11:15])
        found[int(folder.name)] = Seen(int(fields[1]), user + system, ended_user + ended_system)
    return found


def tree(root: int, seen: Mapping[int, Seen]) -> dict[int, int]:
    """pid -> how far below the root, of all that live; nothing where the root does not."""
    if root not in seen:
        return {}
    children: dict[int, list[int]] = {}
    for pid, one in seen.items():
        children.setdefault(one.parent, []).append(pid)
    found, queue = {root: 0}, [root]
    while queue:
        above = queue.pop()
        for pid in children.get(above, []):
            found[pid] = found[above] + 1
            queue.append(pid)
    return found


def spent(root: int, seen: Mapping[int, Seen]) -> Spent:
    """CPU seconds that a tree has used since its root was started."""
    sums = [0.0, 0.0, 0.0]
    for pid, depth in tree(root, seen).items():
        sums[min(depth, 2)] += seen[pid].own
        sums[2] += seen[pid].ended
    return Spent(*sums)


def memory(root: int, seen: Mapping[int, Seen]) -> int:
    """Bytes of a tree (PSS: what processes share is counted once; RSS where PSS may not be read)."""
    return sum(_bytes(pid) for pid in tree(root, seen))


def _bytes(pid: int) -> int:
    try:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text("ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:  # another user's, or ended
        pass
    try:
        return int((_PROC / str(pid) / "statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Meter:
    """Accounts for several trees while a block runs: `with Meter(roots) as meter: ...; meter.cpu, meter.peak`.

    Args:
        roots: name -> pid of each tree's first process, asked for at the start and at the end.
        every: seconds between looks at the memory.

    Attributes:
        cpu: name -> CPU seconds in the block.
        peak: name -> the most bytes at one look.
        restarted: names whose first process is another one at the end: what the old one used is not in `cpu`.
    """

    def __init__(self, roots: Callable[[], Mapping[str, int]], every: float = 1.0) -> None:
        self._roots = roots
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="memory", daemon=True)
        self.cpu: dict[str, Spent] = {}
        self.peak: dict[str, int] = {}
        self.restarted: list[str] = []

    def __enter__(self) -> Meter:
        self._first = dict(self._roots())
        seen = look()
        self._before = {name: spent(pid, seen) for name, pid in self._first.items()}
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        seen, last = look(), dict(self._roots())
        self.restarted = [name for name, pid in self._first.items() if last.get(name) != pid]
        self.cpu = {name: spent(pid, seen) - self._before[name] for name, pid in self._first.items() if pid in seen}
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            seen = look()
            for name, pid in self._first.items():
                self.peak[name] = max(self.peak.get(name, 0), memory(pid, seen))
            if self._over.wait(self._every):
                return
