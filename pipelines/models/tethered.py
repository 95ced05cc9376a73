"""Runs a program that ends with whoever started it: `python -m pipelines.models.tethered PROGRAM ARGUMENT...`.

Standard input is the tether: when its other end closes, by kill -9 of the starter too, the program and every process
of its group are killed. The exit code is the program's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress


def main(argv: Sequence[str]) -> int:
    """Run it to its end, or to the tether's."""
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603 what we were told to

    def hold() -> None:
        while sys.stdin.buffer.read(1):
            continue
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    threading.Thread(target=hold, daemon=True).start()
    return child.wait()


if __name__ == "__main__":
    code = main(sys.argv[1:])
    os._exit(code if 0 <= code < 256 else 1)  # the thread may be reading standard input, which a usual exit waits for
