"""The disk under the ledger, and then that under the broker, is full until they have met it, and a while longer."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import servers
from account import Outcome
from house import House
from options import Options
from servers import Server, until
from trial import Trial, trial

#: What both say of it in their logs: the system's own words.
_FULL = "No space left on device"


def full_disk(options: Options, say: Callable[[str], None]) -> Iterator[Outcome]:
    """The disk under the ledger, and then that under the broker, is full for a while."""
    if why := servers.can_mount():
        yield Outcome("disk full", skipped=why)
        return
    yield _full(options, say, "ledger", "postgres", 320)
    if not options.quick:
        yield _full(options, say, "broker", "kafka", 64)


def _full(options: Options, say: Callable[[str], None], name: str, part: str, megabytes: int) -> Outcome:
    """A house with a disk of that size under one of its parts."""
    state = Path(tempfile.mkdtemp(prefix="careloom-chaos-"))
    state.chmod(0o755)
    with servers.small_disk(state / part, megabytes), House(state=state, say=say) as house:
        server = house.kafka[0] if part == "kafka" else house.postgres
        with trial(house, options, f"disk full under the {name}") as told:
            ballast, before = state / part / "ballast", server.said(_FULL)
            _fill(ballast)
            with contextlib.suppress(AssertionError):  # a disk that is full and not needed is no fault
                until(lambda: server.said(_FULL) > before, "the full disk is met", 60)
            time.sleep(options.outage)
            _expect_met(told, server, server.said(_FULL) - before)
            ballast.unlink()
            _start_if_ended(server)
            told.ended()
        return told.outcome


def _fill(ballast: Path) -> None:
    """Write until nothing more fits."""
    with ballast.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(b"\0" * 65536)
        except OSError:
            return


def _expect_met(told: Trial, server: Server, refusals: int) -> None:
    """The server's own log tells whether it has met the fault."""
    told.outcome.expect("whether the full disk was met", int(refusals > 0), 1)
    ended = "; it ended" if not server.running else ""
    told.outcome.notes.append(f"the server's log names the full disk {refusals} times{ended}")


def _start_if_ended(server: Server) -> None:
    """What an operator does when he has made room: start what the full disk has ended."""
    time.sleep(1.0)
    if not server.running:
        server.start()
