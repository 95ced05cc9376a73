"""`python zygote.py`: a warm parent that forks careloom's processes, so that one which was killed is back in 0.1 s.

Reads one JSON line a child from standard input: `{"id", "role", "run", "env", "log"}`; writes one for each thing that
happens to a child: `{"id", "pid", "event": "started" | "stopped" | "ended", "status"}` (a signal is a negative status).
Each child is a process of its own with its own log and environment and runs the real entry point; only the interpreter
and the imports are the parent's. When standard input ends, every child is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import selectors
import signal
import sys
import traceback
from typing import Any

from forks import ALL_FAILED, BROKEN, DONE

import pipelines.dispatcher.__main__ as dispatcher
import pipelines.gateway.__main__ as gateway
from fhir_adapters.validate import problems
from pipelines import fail_points
from pipelines.runner import carry as runner
from plugins import manager
from plugins.matching import Matcher

# what tasks import when they run: a parent that has it already is what makes the forks cheap
for _module in (
    "aiohttp", "fhir_adapters.fhir_client", "kafka", "pipelines.runner.inference", "pipelines.ledger",
    "pipelines.models.openai_chat", "pipelines.kafka.payloads", "pipelines.runner.sources", "pipelines.runner.staying",
    "pipelines.runner.write_back", "psycopg", "sqlalchemy.dialects.postgresql.psycopg", "uvicorn.lifespan.on",
    "uvicorn.loops.auto", "uvicorn.protocols.http.auto",
):  # fmt: skip
    importlib.import_module(_module)

# what the first event would have to wait for: the scenarios with their triggers, and the validation of their resources
for _scenario in manager.load().scenarios.values():
    for _trigger in _scenario.triggers:
        problems({"resourceType": _trigger.resource_type, "id": "warm"}, "R4")
Matcher(manager.load().scenarios.values())

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Fork what is asked for until standard input ends."""
    children: dict[int, int] = {}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    events = selectors.DefaultSelector()
    events.register(0, selectors.EVENT_READ)
    events.register(woken, selectors.EVENT_READ)
    left = b""
    while True:
        for key, _ in events.select():
            if key.fd == woken:
                os.read(woken, 4096)
                continue
            chunk = os.read(0, 65536)
            if not chunk:
                return _end(children)
            *lines, left = (left + chunk).split(b"\n")
            for line in lines:
                asked = json.loads(line)
                pid = _fork(asked)
                children[pid] = asked["id"]
                _tell(id=asked["id"], pid=pid, event="started", status=0)
        _reap(children)


def _fork(asked: dict[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = BROKEN
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(BROKEN)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for mine, theirs in ((null, 0), (log, 1), (log, 2)):
            os.dup2(mine, theirs)
        os.closerange(3, 64)
        os.environ.update(asked["env"])
        importlib.reload(fail_points)  # the functions that others have imported read their plan from the module
        status = _run(asked["role"], asked.get("run") or "")
    except SystemExit as over:
        status = over.code if isinstance(over.code, int) else BROKEN
    except BaseException:  # the child must never come back into the parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(role: str, run_id: str) -> int:
    if role == "gateway":
        return gateway.main([])
    if role == "dispatcher":
        return dispatcher.main()
    assert role == "carry", role
    summary = runner.carry(run_id)
    print(summary.line, flush=True)
    return ALL_FAILED if summary.failed_all else DONE


def _reap(children: dict[int, int]) -> None:
    while children:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:
            return
        if not pid:
            return
        if os.WIFSTOPPED(status):
            _tell(id=children[pid], pid=pid, event="stopped", status=0)
        elif pid in children:
            _tell(id=children.pop(pid), pid=pid, event="ended", status=os.waitstatus_to_exitcode(status))


def _end(children: dict[int, int]) -> None:
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _tell(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    main()
