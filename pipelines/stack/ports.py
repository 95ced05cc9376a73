"""Free ports on loopback, and their reservation between choice and use."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import Collection, Iterable

from pipelines.errors import StackError

#: Below Linux's range for outgoing connections (32768-60999): none of those can take a port between choice and use.
_RANGE = range(20_000, 32_000)


def free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now, and no other stack is about to."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            _mark(port).close()
        except OSError:
            return False
    return True


def choose(taken: Collection[int] = (), preferred: int | None = None) -> int:
    """A free port that is not in `taken`; `preferred` when that one is free.

    Raises:
        StackError: none was found.
    """
    if preferred is not None and preferred not in taken and free(preferred):
        return preferred
    for port in random.sample(_RANGE, 200):
        if port not in taken and free(port):
            return port
    raise StackError(f"no free port found on 127.0.0.1 between {_RANGE.start} and {_RANGE.stop}")


class Reservation:
    """Ports that no other stack chooses until `release`; the kernel releases them when this process ends."""

    def __init__(self, ports: Iterable[int]) -> None:
        self._marks: list[socket.socket] = []
        for port in ports:
            with contextlib.suppress(OSError):  # another stack was faster by milliseconds: its start will tell
                self._marks.append(_mark(port))

    def release(self) -> None:
        """Let others choose them. May be called twice."""
        while self._marks:
            self._marks.pop().close()


def _mark(port: int) -> socket.socket:
    """A name in Linux's abstract socket namespace: one holder at a time, gone with its process, no file left."""
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        mark.bind(f"\0careloom-port-{port}")
    except OSError:
        mark.close()
        raise
    return mark
