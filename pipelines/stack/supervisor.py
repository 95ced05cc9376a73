"""Keeps programs running: starts them, restarts what crashes, and leaves nothing behind when it ends.

One thread starts, watches and restarts; callers only ask it to. It has to be one thread that lives as long as the
supervisor, since the kernel sends a parent-death signal when the *thread* that started a child ends. The guardian
(`pipelines.stack.guardian`) covers what that signal cannot reach.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.errors import StackError
from pipelines.stack import guardian, processes
from pipelines.stack.probes import Probe, wait

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
#: Seconds before the first restart; doubles up to the cap; starts anew after a program ran for `_STEADY` seconds.
_BACKOFF, _BACKOFF_CAP, _STEADY = 0.2, 10.0, 30.0
#: Ends before the first healthy answer after which a program is given up: it would never come up.
_STILLBORN = 3


@dataclass(frozen=True)
class Program:
    """One process to keep running.

    Attributes:
        name: stands in logs, in `status` and in `Stack.kill(name)`.
        argv: program and arguments.
        probe: how to tell that it answers; None when running is all there is to tell.
        env: added to the environment of the supervisor.
        without: variables of the supervisor's environment that it must not see.
        cwd: working folder; the supervisor's when None.
        patience: seconds until it must be healthy.
        stop_signal: asks it to end.
        grace: seconds after which it is ended by SIGKILL.
    """

    name: str
    argv: tuple[str, ...]
    probe: Probe | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    cwd: Path | None = None
    patience: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = 10.0


@dataclass(frozen=True)
class Seen:
    """A program as it runs: its pid, since when (UNIX time), and how often it was restarted after a crash."""

    program: Program
    pid: int
    started: float
    restarts: int


@dataclass
class _Kept:
    """A program and what became of it."""

    program: Program
    process: subprocess.Popen[bytes]
    started: float
    started_at: float = field(default_factory=time.time)
    restarts: int = 0
    backoff: float = _BACKOFF
    due: float | None = None
    healthy_once: bool = False
    given_up: str | None = None


class Supervisor:
    """Keeps programs running until `stop()`.

    Args:
        stack_id: the mark on every process.
        logs: folder for one log file a program.
        changed: called (from the supervisor's thread) whenever a program was started or restarted.
    """

    def __init__(self, stack_id: str, logs: Path, changed: Callable[[], None] = lambda: None) -> None:
        self._id = stack_id
        self._logs = logs
        self._changed = changed
        self._kept: dict[str, _Kept] = {}
        self.pid = os.getpid()
        self._asked: queue.SimpleQueue[tuple[Callable[[], None], Future[None]]] = queue.SimpleQueue()
        self._over = threading.Event()
        self._stopping = threading.Lock()
        logs.mkdir(parents=True, exist_ok=True)
        self._guardian = self._start_guardian()
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)
        self._thread.start()

    # --- what callers ask ---------------------------------------------------------------------------------------------

    def start(self, program: Program) -> None:
        """Start a program and wait until it is healthy.

        Raises:
            StackError: it cannot be started or never answered; the message names its log and quotes its end.
        """
        self._ask(lambda: self._spawn(program))
        self.wait_healthy(program.name)

    def wait_healthy(self, name: str) -> float:
        """Wait until the program answers; returns the seconds it took.

        Raises:
            StackError: it never did.
        """
        kept = self._of(name)
        program = kept.program
        if program.probe is None:
            return 0.0
        probe = program.probe

        def ask() -> str | None:
            if kept.due is not None or kept.process.poll() is not None:
                return "it is not running"
            reason = probe.ask(kept.started_at)
            if reason is None and probe.own and not processes.listening(self.pids(name), probe.port):
                return f"port {probe.port} is answered by a process that is not ours"
            return reason

        try:
            seconds = wait(ask, patience=program.patience, ended=lambda: self._hopeless(kept))
        except StackError as error:
            raise StackError(f"{name}: {error}; its log ({self.log(name)}) ends:\n{self._tail(name)}") from None
        kept.healthy_once = True
        return seconds

    def stop_one(self, name: str) -> Program:
        """Stop one program and everything it started; it is not restarted."""
        program = self._of(name).program
        self._ask(lambda: self._end([self._kept.pop(name)]))
        return program

    def restart(self, name: str) -> None:
        """Stop a program in an orderly way, start it again and wait until it is healthy.

        Raises:
            StackError: it does not come up.
        """
        self.start(self.stop_one(name))

    def kill(self, name: str, pid: int | None = None) -> None:
        """kill -9: a crash, for tests. The program (or one process of it) ends now and is restarted."""
        victim = pid if pid is not None else self._of(name).process.pid
        if victim not in self.pids(name):
            raise StackError(f"{name}: process {victim} is not one of its own")
        os.kill(victim, signal.SIGKILL)
        while processes.alive(victim):
            time.sleep(0.005)

    def pids(self, name: str) -> list[int]:
        """Living processes of a program: its own first, then those it started."""
        main = self._of(name).process.pid
        others = {*processes.marked(self._id, name), *processes.descendants(main)} - {main}
        return [pid for pid in (main, *sorted(others)) if processes.alive(pid)]

    def log(self, name: str) -> Path:
        """The program's log file."""
        return self._logs / f"{name}.log"

    def programs(self) -> dict[str, Seen]:
        """What is kept running, by name."""
        return {
            name: Seen(kept.program, kept.process.pid, kept.started_at, kept.restarts)
            for name, kept in list(self._kept.items())
        }

    def stop(self) -> None:
        """Stop everything, newest first, and make sure that no process is left. May be called twice."""
        with self._stopping:
            if self._over.is_set():
                return
            ended: Future[None] = Future()
            self._asked.put((self._end_all, ended))
            ended.result()
        self._thread.join()
        processes.end(self._id, grace=1.0)
        if self._guardian.stdin is not None:
            self._guardian.stdin.close()
        self._guardian.wait()

    # --- what the one thread does -------------------------------------------------------------------------------------

    def _ask(self, work: Callable[[], None]) -> None:
        if self._over.is_set():
            raise StackError("the stack is stopped")
        answer: Future[None] = Future()
        self._asked.put((work, answer))
        while not answer.done():
            wait_for((answer,), timeout=0.5)
            if self._over.is_set() and not answer.done():
                raise StackError("the stack is stopped")
        answer.result()

    def _keep(self) -> None:
        while not self._over.is_set():
            try:
                work, answer = self._asked.get(timeout=0.1)
            except queue.Empty:
                self._look()
                continue
            try:
                work()
            except Exception as error:  # noqa: BLE001  # raised where it was asked for, in the caller's thread
                answer.set_exception(error)
            else:
                answer.set_result(None)

    def _look(self) -> None:
        for kept in list(self._kept.values()):
            if kept.given_up is None and kept.due is None and kept.process.poll() is not None:
                self._ended(kept)
            elif kept.due is not None and time.monotonic() >= kept.due:
                self._again(kept)
        if self._guardian.poll() is not None:
            self._guardian = self._start_guardian()

    def _ended(self, kept: _Kept) -> None:
        name, code = kept.program.name, kept.process.returncode
        self._note(name, f"ended with {code}")
        processes.end(self._id, name, grace=0.0)  # workers of the one that ended would hold its port and its work
        if not kept.healthy_once and kept.restarts + 1 >= _STILLBORN:
            kept.given_up = f"ended {_STILLBORN} times before it answered, the last time with {code}"
            return
        if time.monotonic() - kept.started > _STEADY:
            kept.backoff = _BACKOFF
        kept.due = time.monotonic() + kept.backoff
        kept.backoff = min(kept.backoff * 2, _BACKOFF_CAP)

    def _again(self, kept: _Kept) -> None:
        kept.due = None
        kept.restarts += 1
        kept.started, kept.started_at = time.monotonic(), time.time()
        kept.process = self._popen(kept.program)
        self._changed()

    def _spawn(self, program: Program) -> None:
        if program.name in self._kept:
            raise StackError(f"{program.name} is running already")
        self._kept[program.name] = _Kept(program, self._popen(program), time.monotonic())
        self._changed()

    def _popen(self, program: Program) -> subprocess.Popen[bytes]:
        kept = {key: value for key, value in os.environ.items() if key not in program.without}
        env = processes.with_bytecode(kept)
        self._note(program.name, "starting")
        with self.log(program.name).open("ab") as log:
            try:
                return subprocess.Popen(
                    program.argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=program.cwd,
                    env={**env, **program.env, **processes.marks(self._id, program.name)},
                    start_new_session=True,  # Ctrl-C in the terminal reaches the supervisor alone
                    preexec_fn=_end_with_parent,
                )
            except OSError as error:
                raise StackError(f"{program.name}: {program.argv[0]} cannot be run: {error.strerror}") from None

    def _end_all(self) -> None:
        self._over.set()  # from here on nothing is started
        kept = list(self._kept.values())
        self._kept.clear()
        self._end(kept[::-1])

    def _end(self, kept: list[_Kept]) -> None:
        """All at once, each in its own way and time; then whatever they left behind."""
        for one in kept:
            if one.process.poll() is None:
                one.process.send_signal(one.program.stop_signal)
        began = time.monotonic()
        for one in kept:
            try:
                one.process.wait(max(0.0, began + one.program.grace - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._note(one.program.name, f"did not end within {one.program.grace:.0f} s: killed")
                one.process.kill()
                one.process.wait()
            processes.end(self._id, one.program.name, grace=0.0)
            self._note(one.program.name, "stopped")

    # --- small things -------------------------------------------------------------------------------------------------

    def _of(self, name: str) -> _Kept:
        try:
            return self._kept[name]
        except KeyError:
            raise StackError(f"no part named {name!r} is running; running: {', '.join(self._kept) or 'none'}") from None

    def _hopeless(self, kept: _Kept) -> str | None:
        return "the stack is stopped" if self._over.is_set() else kept.given_up

    def _note(self, name: str, what: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with self.log("supervisor").open("a", encoding="utf-8") as log:
            log.write(f"{stamp} {name} {what}\n")

    def _tail(self, name: str, lines: int = 12) -> str:
        log = self.log(name)
        return "\n".join(log.read_text("utf-8", "replace").splitlines()[-lines:]) if log.exists() else "(no log)"

    def _start_guardian(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-S", "-m", guardian.__name__, self._id, "5"],  # -S: it needs no site-packages
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={"PYTHONPATH": str(Path(guardian.__file__).parents[2])},
            start_new_session=True,
        )


def _end_with_parent() -> None:
    """In the child, before exec: SIGTERM when the supervisor's thread ends (prctl(2), PR_SET_PDEATHSIG)."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
