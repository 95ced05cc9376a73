"""Ends the stack's processes when the supervisor itself is gone: `python -m pipelines.stack.guardian STACK_ID GRACE`.

It holds the reading end of a pipe whose writing end only the supervisor has. However the supervisor ends, kill -9
included, the kernel closes that end; then nothing that carries the stack's mark is left running. Kernel parent-death
signals alone would not do: they reach children, not the workers of those children.
"""

from __future__ import annotations

import signal
import sys

from pipelines.stack.processes import end


def main(stack_id: str, grace: float) -> None:
    """Wait for the end of standard input, then end the stack; Ctrl-C in the terminal is the supervisor's business."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    while sys.stdin.buffer.read(1):
        continue
    end(stack_id, grace=grace)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
