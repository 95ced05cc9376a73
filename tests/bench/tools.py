"""What only the benchmarks need, installed beside careloom's environment and never into it: .careloom/bench/<name>."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.stack.part import PROJECT

#: Name of a folder -> what is in it.
NEEDED = {
    # samples a running process and those that it forks, from outside
    "py-spy": ("py-spy==0.4.3",),
    # Airflow's own ways from Kafka to a run; without what they need that Airflow already brings
    "kafka-triggers": (
        "apache-airflow-providers-apache-kafka==2.1.0",
        "apache-airflow-providers-common-messaging==2.1.2",
        "confluent-kafka==2.16.1",
    ),
}


class Missing(Exception):
    """It cannot be had here; the message says what was tried."""


def folder(name: str) -> Path:
    """Where it is, installed on the first call.

    Raises:
        Missing: it cannot be installed.
    """
    where = PROJECT / ".careloom" / "bench" / name
    done = where / "installed.txt"
    wanted = "\n".join(NEEDED[name])
    if not done.exists() or done.read_text("utf-8") != wanted:
        shutil.rmtree(where, ignore_errors=True)
        _install(NEEDED[name], where)
        done.write_text(wanted, "utf-8")
    return where


def _install(what: Sequence[str], where: Path) -> None:
    uv = shutil.which("uv") or str(PROJECT / ".careloom" / "tools" / "bin" / "uv")
    tries = (
        (uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", str(where), *what),
        (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(where), *what),
    )
    said = ""
    for command in tries:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            said = type(error).__name__
            continue
        if done.returncode == 0:
            return
        said = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"ended with {done.returncode}"
    raise Missing(f"{', '.join(what)} cannot be installed: {said}")
