"""The supervisor, with real processes: what crashes comes back, and nothing is ever left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.errors import StackError
from pipelines.stack import ports, processes
from pipelines.stack.probes import Probe
from pipelines.stack.supervisor import Program, Supervisor

#: Answers HTTP, and has a child that renamed itself, left its group and ignores SIGTERM.
_SERVER = """
import os, signal, subprocess, sys, http.server
subprocess.Popen([sys.executable, "-c", '''
import os, signal, time
os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("/proc/self/comm", "w").write("somebody else")
time.sleep(600)
'''])
class Yes(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(204); self.end_headers()
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Yes).serve_forever()
"""


def _server(name: str = "server") -> Program:
    port = ports.choose()
    return Program(
        name,
        (sys.executable, "-c", _SERVER, str(port)),
        Probe("http", f"http://127.0.0.1:{port}/"),
        patience=30,
        grace=2,
    )


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_program_killed_with_signal_9_comes_back_with_a_new_process(supervisor: Supervisor) -> None:
    supervisor.start(_server())
    before = supervisor.pids("server")

    supervisor.kill("server")
    _until(lambda: supervisor.programs()["server"].restarts == 1)
    supervisor.wait_healthy("server")

    after = supervisor.pids("server")
    assert not set(before) & set(after)
    assert not any(processes.alive(pid) for pid in before), "workers of the one that crashed are ended too"


def test_stop_leaves_no_process_even_one_that_left_its_group_and_ignores_sigterm(
    supervisor: Supervisor, stack_id: str
) -> None:
    supervisor.start(_server())
    _until(lambda: len(supervisor.pids("server")) == 2)

    supervisor.stop()

    assert processes.marked(stack_id) == []


def test_stopping_one_program_leaves_the_others_and_it_stays_down(supervisor: Supervisor) -> None:
    supervisor.start(_server("one"))
    supervisor.start(_server("two"))
    pids = supervisor.pids("one")

    supervisor.stop_one("one")

    assert not any(processes.alive(pid) for pid in pids)
    assert list(supervisor.programs()) == ["two"]
    assert supervisor.pids("two")


def test_restart_is_orderly_and_counts_as_no_crash(supervisor: Supervisor) -> None:
    supervisor.start(_server())
    before = supervisor.pids("server")[0]

    supervisor.restart("server")

    assert supervisor.pids("server")[0] != before
    assert supervisor.programs()["server"].restarts == 0


def test_a_program_that_never_comes_up_is_given_up_and_its_log_is_quoted(supervisor: Supervisor) -> None:
    broken = Program(
        "broken", (sys.executable, "-c", "print('no such folder'); raise SystemExit(3)"), Probe("tcp", "127.0.0.1:9")
    )

    with pytest.raises(StackError, match=r"(?s)broken: ended 3 times .* with 3; its log .*no such folder"):
        supervisor.start(broken)


def test_an_answer_from_somebody_elses_process_on_the_port_is_no_health(supervisor: Supervisor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        probe = Probe("tcp", f"127.0.0.1:{port}")
        with pytest.raises(StackError, match=f"port {port} is answered by a process that is not ours"):
            supervisor.start(Program("robbed", ("sleep", "600"), probe, patience=0.5))


def test_a_program_that_is_not_installed_is_named(supervisor: Supervisor) -> None:
    with pytest.raises(StackError, match="gone: /no/such/program cannot be run: No such file"):
        supervisor.start(Program("gone", ("/no/such/program",)))


def test_a_name_is_started_once(supervisor: Supervisor) -> None:
    supervisor.start(Program("sleeper", ("sleep", "600")))
    with pytest.raises(StackError, match="sleeper is running already"):
        supervisor.start(Program("sleeper", ("sleep", "600")))


def test_kill_refuses_a_process_that_is_not_the_programs_own(supervisor: Supervisor) -> None:
    supervisor.start(Program("sleeper", ("sleep", "600")))
    with pytest.raises(StackError, match="is not one of its own"):
        supervisor.kill("sleeper", os.getpid())


def test_waiting_for_health_ends_when_the_stack_is_stopped(supervisor: Supervisor) -> None:
    import threading

    deaf = Program("deaf", ("sleep", "600"), Probe("tcp", f"127.0.0.1:{ports.choose()}"), patience=600)
    errors: list[StackError] = []

    def start() -> None:
        try:
            supervisor.start(deaf)
        except StackError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    _until(lambda: "deaf" in supervisor.programs())
    supervisor.stop()
    thread.join(timeout=30)

    assert not thread.is_alive()
    assert "the stack is stopped" in str(errors[0])


_OWNER = """
import sys, time
from pathlib import Path
from pipelines.stack.supervisor import Program, Supervisor
supervisor = Supervisor(sys.argv[1], Path(sys.argv[2]))
supervisor.start(Program("worker", (sys.executable, "-c", sys.argv[3])))
print("up", flush=True)
time.sleep(600)
"""

_STUBBORN = textwrap.dedent(
    """
    import signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sleep", "600"], start_new_session=True)
    time.sleep(600)
    """
)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_when_the_supervisor_itself_is_killed(
    how: signal.Signals, stack_id: str, tmp_path: Path
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, stack_id, str(tmp_path), _STUBBORN], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    _until(lambda: len(processes.marked(stack_id)) == 2)

    owner.send_signal(how)
    owner.wait()
    owner.stdout.close()

    _until(lambda: processes.marked(stack_id) == [])


def test_a_killed_guardian_is_replaced(supervisor: Supervisor, stack_id: str) -> None:
    def guardians() -> list[int]:
        return [pid for pid in processes.descendants(os.getpid()) if guards(pid) and processes.alive(pid)]

    def guards(pid: int) -> bool:
        try:
            return f"guardian\0{stack_id}\0".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except FileNotFoundError:  # it ended since it was listed
            return False

    _until(lambda: len(guardians()) == 1)
    first = guardians()
    os.kill(first[0], signal.SIGKILL)
    _until(lambda: len(guardians()) == 1 and guardians() != first)
