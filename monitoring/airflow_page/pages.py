"""Templates into HTML: everything escaped, and a name that a template misspells is an error."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

#: What a form has done, by the word that stands in the address afterwards: nobody writes a message into a link.
_DONE = {
    "off": "Switched off.",
    "on": "Switched on; what waited goes on.",
    "was-on": "It was on already.",
    "retried": "{n} will be tried again.",
    "discarded": "{n} given up.",
    "none": "Nothing was changed: somebody else has decided on it meanwhile.",
    "poison-discarded": "{n} records given up.",
    "poison-recorded": "All {n} records are events now.",
    "poison-left": "{n} of the records are still no events, or gone from Kafka; the others are recorded.",
}


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"age": age, "clock": clock, "percent": percent}
    return made


def html(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page; templates know as `root` the path that the page is served under, and as `airflow` Airflow's own."""
    root = str(request.scope.get("root_path", ""))
    text = _environment().get_template(template).render(values, root=root, airflow=root.rpartition("/")[0])
    return HTMLResponse(text, status_code=status)


def done(what: str, number: int) -> str:
    """What was done, in words; "" for what this page never does."""
    return _DONE.get(what, "").format(n=number)


def age(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "–"
    for size, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def clock(at: datetime | None) -> str:
    """A time, in UTC."""
    return "–" if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def percent(share: float | None) -> str:
    """A share; rounded down, for 99.96 % is not all of it."""
    if share is None:
        return "–"
    return f"{int(share * 1000) / 10:g} %"
