"""Watches code at work and tells what it asks of clock, chance, files, network and processes, however it got there.

A profile function sees every call into C, so `datetime.now()` is caught as well as `random.choice()` in a helper of a
helper. What is read once and kept (a table beside the module) is no concern: watch the second run.
"""

from __future__ import annotations

import gc
import random
import sys
import sysconfig
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

_CLOCK = frozenset({"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep",
                    "localtime", "gmtime", "ctime"})  # fmt: skip
#: Module of C functions -> (which of them; none for all, what they are).
_MODULES: dict[str, tuple[frozenset[str], str]] = {
    "time": (_CLOCK, "the clock"),
    "posix": (frozenset({"urandom", "getrandom"}), "chance"),
    "_io": (frozenset({"open", "open_code"}), "a file"),
    "io": (frozenset({"open", "open_code"}), "a file"),
    "builtins": (frozenset({"print", "input"}), "the terminal"),
    "_socket": (frozenset(), "the network"),
    "_posixsubprocess": (frozenset(), "another process"),
    "_uuid": (frozenset(), "chance"),
    "_thread": (frozenset({"start_new_thread"}), "another thread"),
}
_FILES = frozenset({"open", "listdir", "scandir", "remove", "unlink", "mkdir", "system", "fork"})
_LIBRARY = sysconfig.get_paths()["stdlib"]


def impure_calls(work: Callable[[], object]) -> list[str]:
    """What `work` asked of the world, each as "<what> (<function> at <file>:<line>)"; empty where it is pure.

    Raises:
        Exception: whatever `work` raises.
    """
    seen: dict[str, None] = {}

    def watch(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and (what := _what(called)) is not None:
            seen[f"{what} ({_name(called)}() at {_place(frame)})"] = None

    before, collecting = sys.getprofile(), gc.isenabled()
    gc.disable()  # who listens to the collector, as test tools do, would be taken for `work`
    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()
    return list(seen)


def _what(called: Any) -> str | None:
    """Which part of the world a C function belongs to; None for most."""
    owner, name = getattr(called, "__self__", None), getattr(called, "__name__", "")
    if isinstance(owner, ModuleType):
        if owner.__name__ == "posix" and name in _FILES:
            return "a file"
        names, what = _MODULES.get(owner.__name__, (None, ""))
        return what if names is not None and (not names or name in names) else None
    if isinstance(owner, type):
        return "the clock" if issubclass(owner, date) and name in {"now", "utcnow", "today"} else None
    if owner is _shared_random():
        return "chance"
    return "the network" if type(owner).__module__ in {"socket", "_socket", "_ssl"} else None


def _shared_random() -> random.Random:
    """The generator behind the functions of `random`; one that a scenario makes and seeds itself is no chance."""
    shared: random.Random = random.random.__self__  # type: ignore[attr-defined]
    return shared


def _name(called: Any) -> str:
    owner = getattr(called, "__self__", None)
    where = owner.__name__ if isinstance(owner, ModuleType | type) else type(owner).__name__
    return f"{where.lstrip('_')}.{called.__name__}"


def _place(frame: FrameType) -> str:
    """The nearest caller that is not of Python's own library."""
    found: FrameType | None = frame
    while found is not None and _of_library(found.f_code.co_filename):
        found = found.f_back
    found = found or frame
    return f"{Path(found.f_code.co_filename).name}:{found.f_lineno}"


def _of_library(file: str) -> bool:
    return file.startswith("<") or (file.startswith(_LIBRARY) and "site-packages" not in file)
