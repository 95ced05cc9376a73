"""How careloom's processes write their logs: one JSON object a line, or text for a terminal; nothing of any patient.

Of an exception the class and the places are written, and its message only where it is one of ours. Of a line of a
library or plugin that we do not know, the text is written without what was put into it; where nobody can tell, as in a
text that came in one piece, only which line of code wrote it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from pipelines.config import Logging
from pipelines.process import describe, places
from pipelines.telemetry.log_context import about

#: Whose lines are written whole: our own, and those of libraries that name addresses and settings at most.
_TRUSTED = ("pipelines", "plugins", "fhir_adapters", "monitoring", "alembic", "kafka", "uvicorn", "__main__")
#: Loggers of Airflow's own in a task's process: they know run ids, and nothing of a patient.
_AIRFLOWS = ("airflow", "task")
_QUIET = {
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "kafka": logging.WARNING,  # at DEBUG it writes whole records
    "opentelemetry": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "urllib3": logging.WARNING,
}
ACCESS = "uvicorn.access"
_LONGEST = 200


class _Lines(logging.Formatter):
    """What both formats say.

    Args:
        process: stands in every line.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def _line(self, record: logging.LogRecord) -> dict[str, Any]:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": message_of(record),
            **about(),
            **getattr(record, "fields", {}),
        }
        if record.name == ACCESS:
            line |= _access(record.args)
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = describe(record.exc_info[1])
            line["at"] = " < ".join(places(record.exc_info[1]))
        return line


class JsonLines(_Lines):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        return orjson.dumps(self._line(record), default=str).decode()


class TextLines(_Lines):
    """The same for a person's eye: time, level, process, message, and the rest as key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        line = self._line(record)
        head = f"{line.pop('time')} {line.pop('level'):<8} {line.pop('process')}: {line.pop('message')}"
        line.pop("logger")
        return " ".join((head, *(f"{key}={value}" for key, value in line.items())))


def set_up(process: str, settings: Logging | None = None) -> None:
    """Send all logs of this process to standard error; called once more when the configuration is read.

    Args:
        process: name of the process, in every line.
        settings: the section `logging`; None before it is known.
    """
    settings = settings or Logging()
    text = settings.format == "text" or (settings.format is None and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLines(process) if text else JsonLines(process))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(least)
    logging.getLogger(ACCESS).setLevel(logging.INFO if settings.access else logging.CRITICAL)


def message_of(record: logging.LogRecord) -> str:
    """A record's message; of a library that we do not know its first line, without what was put into it.

    A text without arguments may be an f-string, whose values nobody can take out again: it is left out.
    """
    if record.name == ACCESS:
        return "request"
    if record.name.partition(".")[0] in _TRUSTED:
        return record.getMessage()
    if record.args:
        return str(record.msg).partition("\n")[0][:_LONGEST]
    return f"(text left out: {record.filename}:{record.lineno}, {record.funcName})"


class Discreet(logging.Filter):
    """Takes out of a record what `message_of` and an exception of somebody else's would tell; for foreign handlers."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Every record passes, some with less in it."""
        known = record.name.partition(".")[0] in (*_TRUSTED, *_AIRFLOWS)
        if not known and not getattr(record, "discreet", False):  # it comes by once for each handler
            record.discreet = True
            record.msg, record.args = message_of(record), ()
            if record.exc_info and record.exc_info[1] is not None:
                record.msg += f"; {describe(record.exc_info[1])} at {' < '.join(places(record.exc_info[1]))}"
            record.exc_info = record.exc_text = record.stack_info = None
        return True


def be_discreet() -> None:
    """Have all handlers of this process keep to it, whoever has set them up: in a task, Airflow has."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(one, Discreet) for one in handler.filters):
            handler.addFilter(Discreet())


def _access(arguments: Any) -> Mapping[str, Any]:
    """Of uvicorn's line for a request: no address, no query, and of a path the part that names no resource."""
    try:
        _, method, path, _, status = arguments
    except (TypeError, ValueError):
        return {}
    parts = str(path).partition("?")[0].split("/")
    shown = "/".join((*parts[:4], "{id}")) if len(parts) > 4 else "/".join(parts)
    return {"method": str(method), "path": shown[:_LONGEST], "status": status}
