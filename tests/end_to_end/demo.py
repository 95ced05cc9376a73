"""`careloom demo` as a user runs it, for the tests that look at what it leaves behind."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """One run of the command; when it began and ended is Unix time."""

    code: int
    report: dict[str, Any]
    errors: str
    drafts: list[dict[str, Any]]
    processes_left: list[str]
    state: Path
    began: float
    ended: float


def run_demo(state: Path, model: tuple[str, ...]) -> Run:
    """Run it to its end."""
    saved = state.parent / f"{state.name}.ndjson"
    command = [sys.executable, "-m", "pipelines.cli", "demo", "--state", str(state), "--save", str(saved), *model]
    began = time.time()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    print(done.stderr[-6000:])
    print(done.stdout[-6000:])
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else "{}"
    drafts = [json.loads(line) for line in saved.read_text("utf-8").splitlines()] if saved.exists() else []
    return Run(done.returncode, json.loads(last), done.stderr, drafts, left_of(state), state, began, time.time())


def left_of(state: Path) -> list[str]:
    """Processes that still know the state folder, by command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            known = " ".join(process.cmdline()) + " ".join(process.environ().values())
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        if str(state) in known:
            found.append(f"{process.pid} {process.name()}")
    return found
