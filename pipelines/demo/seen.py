"""What Prometheus sees of the demo: every process before the first event, and all that was done before the end.

A counter shows a rise only between two looks. Without one before the first event and one behind the last draft, a demo
whose stages take seconds would be over before its dashboards knew of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx

#: Seconds that Prometheus is waited for: five of its looks.
PATIENCE = 25.0
_LOOK_EVERY = 0.5

#: Every target answered after `{since}` (Unix time); nothing is left out.
_ALL_UP = "min(timestamp(up)) > {since} and min(up) == 1"
#: And the exporter then had every finished piece of work in its counters.
_ALL_COUNTED = "careloom_work_unfolded_items == 0 and timestamp(careloom_work_unfolded_items) > {since}"
#: And every decision.
_ALL_DECIDED = "sum(careloom_decisions_total) >= {decisions}"


def before_the_first_event(prometheus: str | None) -> bool:
    """Wait until every process has been looked at since now.

    Args:
        prometheus: its URL; None where there is none, and nothing is waited for.

    Returns:
        whether that came to be within `PATIENCE`; the demo goes on without it.
    """
    if prometheus is None:
        return True
    since = time.time()
    return _until(lambda: bool(_ask(prometheus, _ALL_UP.format(since=since))))


def after_the_last_draft(prometheus: str | None) -> bool:
    """Wait until all that is finished by now was counted and seen, and the rules have been asked since; as above."""
    if prometheus is None:
        return True
    since = time.time()
    if not _until(lambda: bool(_ask(prometheus, _ALL_COUNTED.format(since=since)))):
        return False
    counted = time.time()
    return _until(lambda: _ruled_since(prometheus, counted))


def after_the_decisions(prometheus: str | None, decisions: int) -> bool:
    """Wait until so many decisions of persons were seen, counted over everything; as above."""
    return prometheus is None or _until(lambda: bool(_ask(prometheus, _ALL_DECIDED.format(decisions=decisions))))


def _ruled_since(prometheus: str, since: float) -> bool:
    """Whether the groups of rules that are asked at every look have been asked since."""
    rule = (
        "min(prometheus_rule_group_last_evaluation_timestamp_seconds and prometheus_rule_group_interval_seconds <= 15)"
    )
    return bool(_ask(prometheus, f"{rule} > {since}"))


def _ask(prometheus: str, query: str) -> list[Any]:
    try:
        answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}, timeout=5)
        found: list[Any] = answer.json()["data"]["result"]
    except (httpx.HTTPError, ValueError, KeyError):
        return []  # it does not answer yet: it is asked again
    return found


def _until(true: Callable[[], bool]) -> bool:
    give_up = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > give_up:
            return False
        time.sleep(_LOOK_EVERY)
    return True
