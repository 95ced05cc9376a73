"""An exception in the gateway's log: its class and where it was raised; its message may quote what it failed on."""

from __future__ import annotations


def place(error: BaseException) -> tuple[str, str]:
    """The type of an exception, and "file:line" where it was raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame is not None else "unknown"
    return type(error).__name__, where
