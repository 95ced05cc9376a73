"""The gateway's log: one JSON line an entry, at most one entry a request, nothing of any patient in it."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson

#: Libraries that write more than they should: kafka-python whole records at DEBUG, uvicorn and httpx paths with ids.
_QUIET = {
    "asyncio": logging.WARNING,
    "httpx": logging.WARNING,
    "kafka": logging.CRITICAL,  # every lost connection is an ERROR to it; the producer says it once
    "uvicorn.access": logging.CRITICAL,
}


class JsonLines(logging.Formatter):
    """Time, level, logger, message, and what was given as `extra={"fields": {...}}`.

    Of an exception only its type and where it was raised are written: its message may quote what it failed on.
    """

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            entry["error"], entry["at"] = place(record.exc_info[1])
        return orjson.dumps(entry).decode()


def place(error: BaseException) -> tuple[str, str]:
    """The type of an exception, and "file:line" where it was raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame is not None else "unknown"
    return type(error).__name__, where


def set_up(level: int = logging.INFO) -> None:
    """Send this process's log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)
